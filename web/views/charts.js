/** Charts as SVG: axes from 0 to 1 or to the number of epochs, lines, points, and texts for screen readers. */

import { html, nothing, svg } from "../vendor/lit-html/lit-html.js";
import { text } from "../text.js";

/** The plot's size and the space for the axes, in units of the drawing. */
const WIDTH = 360;
const HEIGHT = 240;
const LEFT = 54;
const BOTTOM = 36;
const GAP = 18;

/** The approximate number of steps on an axis. */
const STEPS = 5;

/**
 * @typedef {{x: number, y: number, size?: number, title?: string}} Point
 * @typedef {{name: string, points: Point[], hasDots?: boolean}} Series
 * @typedef {{label: string, most: number, step: number, format: (value: number) => string}} Axis from 0 to `most`
 */

/**
 * @param {string} title
 * @param {Axis} across
 * @param {Axis} up
 * @param {Series[]} series drawn in the order of the palette
 * @param {{diagonal?: boolean, marker?: number}} [marks] a diagonal line, and a vertical one at this value
 */
export function chart(title, across, up, series, { diagonal = false, marker } = {}) {
  const place = (/** @type {Point} */ { x, y }) => ({
    x: LEFT + (x / across.most) * (WIDTH - LEFT - GAP),
    y: HEIGHT - BOTTOM - (y / up.most) * (HEIGHT - BOTTOM - GAP),
  });
  const line = (/** @type {string} */ name, /** @type {Point} */ from, /** @type {Point} */ to) => {
    const [a, b] = [place(from), place(to)];
    return svg`<line class=${name} x1=${a.x} y1=${a.y} x2=${b.x} y2=${b.y} />`;
  };
  return html`
    <figure class="chart">
      <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label=${title}>
        ${grid(across, up, place)} ${diagonal ? line("ideal", { x: 0, y: 0 }, { x: across.most, y: up.most }) : nothing}
        ${series.map((one, index) => drawn(one, index, place))}
        ${marker === undefined ? nothing : line("marker", { x: marker, y: 0 }, { x: marker, y: up.most })}
      </svg>
      ${series.length > 1 ? legend(series) : nothing}
    </figure>
  `;
}

/** @param {Axis} across @param {Axis} up @param {(point: Point) => {x: number, y: number}} place */
function grid(across, up, place) {
  return svg`
    ${ticks(up).map((tick) => {
      const at = place({ x: 0, y: tick });
      return svg`
        <line class="grid" x1=${LEFT} y1=${at.y} x2=${WIDTH - GAP} y2=${at.y} />
        <text x=${LEFT - 6} y=${at.y + 4} text-anchor="end">${up.format(tick)}</text>`;
    })}
    ${ticks(across).map((tick) => {
      const at = place({ x: tick, y: 0 });
      return svg`<text x=${at.x} y=${HEIGHT - BOTTOM + 16} text-anchor="middle">${across.format(tick)}</text>`;
    })}
    <text class="axis" x=${(LEFT + WIDTH - GAP) / 2} y=${HEIGHT - 2} text-anchor="middle">${across.label}</text>
    <text class="axis" x=${-(HEIGHT - BOTTOM) / 2} y="11" text-anchor="middle" transform="rotate(-90)">${up.label}</text>
  `;
}

/** @param {Axis} axis @returns {number[]} */
function ticks({ most, step }) {
  return Array.from({ length: Math.floor(most / step + 0.001) + 1 }, (_, tick) => tick * step);
}

/** @param {Series} series @param {number} index @param {(point: Point) => {x: number, y: number}} place */
function drawn({ points, hasDots }, index, place) {
  const placed = points.map((point) => ({ ...place(point), size: point.size ?? 3, title: point.title }));
  const path = placed.map(({ x, y }, at) => `${at ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  return svg`
    <path class="line series-${index + 1}" d=${path} />
    ${
      hasDots
        ? placed.map(
            ({ x, y, size, title }) =>
              svg`<circle class="dot series-${index + 1}" cx=${x} cy=${y} r=${size}>${title ? svg`<title>${title}</title>` : nothing}</circle>`,
          )
        : nothing
    }
  `;
}

/** @param {Series[]} series */
function legend(series) {
  return html`
    <figcaption class="legend">
      ${series.map(({ name }, index) => html`<span><i class="swatch series-${index + 1}"></i>${name}</span>`)}
    </figcaption>
  `;
}

/** Return an axis of shares. @param {string} label @returns {Axis} */
export function shares(label) {
  return { label, most: 1, step: 1 / STEPS, format: text.wholePercent };
}

/** Return an axis of whole numbers. @param {string} label @param {number} most @returns {Axis} */
export function counts(label, most) {
  return { label, most, step: Math.ceil(most / STEPS), format: text.number };
}
