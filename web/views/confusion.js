/** The confusion matrix, the answers for one class, and the most frequent mistakes. */

import { update } from "../state.js";
import { text } from "../text.js";
import { html, svg } from "../vendor/lit-html/lit-html.js";
import { select } from "./fields.js";

/** The number of shades in the matrix, and of rows in the lists. */
const SHADES = 5;
const WORST = 12;

/**
 * @param {string[]} labels
 * @param {number[][]} counts a row for each true class, a column for each answer
 * @param {number} chosen the class whose answers are listed
 */
export function confusion(labels, counts, chosen) {
  const choices = labels.map((label, index) => /** @type {[string, string]} */ ([`${index}`, text.label(label)]));
  return html`
    <section class="panel">
      <h2>${text.confusion}</h2>
      <p class="small">${text.confusionLegend}</p>
      <div class="split">
        ${matrix(counts, chosen)}
        <div>
          ${select(text.confusionOf, choices, `${chosen}`, (index) => update({ confusedClass: Number(index) }))}
          ${bars(labels, cellsOf(counts[chosen], chosen))}
        </div>
        <div>
          <h3>${text.mostConfused}</h3>
          ${mistakes(labels, drawingOf(counts).worst)}
        </div>
      </div>
    </section>
  `;
}

/** @param {number[][]} counts @param {number} chosen */
function matrix(counts, chosen) {
  const size = counts.length;
  return html`
    <svg
      class="matrix"
      viewBox="0 0 ${size} ${size}"
      role="img"
      aria-label=${text.confusionTitle}
      shape-rendering="crispEdges"
      @click=${(/** @type {MouseEvent} */ event) => choose(event, size)}
    >
      <rect class="ground" width=${size} height=${size} />
      ${drawingOf(counts).paths.map((path, shade) => svg`<path class="shade-${shade + 1}" d=${path} />`)}
      <rect class="chosen" x="0" y=${chosen} width=${size} height="1" />
    </svg>
  `;
}

/**
 * @typedef {{there: number, said: number, count: number, share: number}} Cell
 * @typedef {{paths: string[], worst: Cell[]}} Drawing the squares of each shade, from the faintest, and the most frequent mistakes
 */

/** @type {WeakMap<number[][], Drawing>} */
const drawings = new WeakMap();

/** Return a matrix's drawing. Cached: there may be a thousand classes. @param {number[][]} counts @returns {Drawing} */
function drawingOf(counts) {
  const known = drawings.get(counts);
  if (known) return known;
  const paths = Array.from({ length: SHADES }, () => "");
  const cells = counts.flatMap(cellsOf);
  for (const { there, said, share } of cells) paths[shadeOf(share)] += `M${said} ${there}h1v1h-1z`;
  const mistakes = cells.filter(({ there, said }) => there !== said).sort((a, b) => b.share - a.share);
  const drawing = { paths, worst: mistakes.slice(0, WORST) };
  drawings.set(counts, drawing);
  return drawing;
}

/** Return the cells of a row that are not empty. @param {number[]} row @param {number} there @returns {Cell[]} */
function cellsOf(row, there) {
  const all = sum(row);
  return row.map((count, said) => ({ there, said, count, share: count / all })).filter(({ count }) => count > 0);
}

/** Return the shade by the square root of the share, so that single mistakes are visible. @param {number} share */
function shadeOf(share) {
  return Math.min(SHADES - 1, Math.floor(Math.sqrt(share) * SHADES));
}

/** @param {MouseEvent} event @param {number} size */
function choose({ currentTarget, clientY }, size) {
  const { top, height } = /** @type {Element} */ (currentTarget).getBoundingClientRect();
  const row = Math.floor(((clientY - top) / height) * size);
  if (row >= 0 && row < size) update({ confusedClass: row });
}

/** @param {string[]} labels @param {Cell[]} cells of one class */
function bars(labels, cells) {
  const all = sum(cells.map(({ count }) => count));
  const found = cells.toSorted((a, b) => b.count - a.count);
  return html`
    <ul class="bars">
      ${found.slice(0, WORST).map(
        ({ said, count, share }) => html`
          <li>
            <span>${text.confusionRow(labels[said], count, all)}</span>
            <span class="track"><span class="fill" .style=${`inline-size: ${share * 100}%`}></span></span>
          </li>
        `,
      )}
    </ul>
  `;
}

/** @param {string[]} labels @param {Cell[]} worst */
function mistakes(labels, worst) {
  return html`
    <ul class="bars">
      ${worst.map(
        ({ there, said, share }) => html`
          <li>
            <span>${text.mostConfusedRow(labels[there], labels[said])}</span>
            <span class="figure">${text.percent(share)}</span>
          </li>
        `,
      )}
    </ul>
  `;
}

/** @param {number[]} numbers */
function sum(numbers) {
  return numbers.reduce((total, one) => total + one, 0);
}
