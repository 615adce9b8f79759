/** What is taken for what, as a matrix, by class, and the worst of it. */

import { update } from "../state.js";
import { text } from "../text.js";
import { html, svg } from "../vendor/lit-html/lit-html.js";
import { select } from "./controls.js";

/** Shades of the matrix, and how many rows of the worst are shown. */
const SHADES = 5;
const WORST = 12;

/**
 * @param {string[]} labels
 * @param {number[][]} counts a row for each class that is there, a column for each that is said
 * @param {number} chosen the class whose row is told
 */
export function confusion(labels, counts, chosen) {
  const choices = Object.fromEntries(labels.map((label, index) => [`${index}`, text.label(label)]));
  return html`
    <section class="panel wide" id="confusion">
      <h2>${text.confusion}</h2>
      <p class="small">${text.confusionLegend}</p>
      <div class="split">
        ${matrix(counts, chosen)}
        <div>
          ${select(text.confusionOf, choices, `${chosen}`, (index) => update({ confusedClass: Number(index) }))}
          ${rowOf(labels, counts[chosen])}
        </div>
        <div>
          <h3>${text.mostConfused}</h3>
          ${worst(labels, counts)}
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
      ${shaded(counts).map((path, shade) => svg`<path class="shade-${shade + 1}" d=${path} />`)}
      <rect class="chosen" x="0" y=${chosen} width=${size} height="1" />
    </svg>
  `;
}

/** @type {WeakMap<number[][], string[]>} */
const drawn = new WeakMap();

/** The squares of each shade as one path, from the faintest; drawn once. @param {number[][]} counts @returns {string[]} */
function shaded(counts) {
  const known = drawn.get(counts);
  if (known) return known;
  const paths = Array.from({ length: SHADES }, () => "");
  for (const [row, said] of counts.entries()) {
    const all = sum(said);
    for (const [column, count] of said.entries()) {
      if (count > 0) paths[shadeOf(count / all)] += `M${column} ${row}h1v1h-1z`;
    }
  }
  drawn.set(counts, paths);
  return paths;
}

/** By the root of the share: single mistakes would be invisible else. @param {number} share */
function shadeOf(share) {
  return Math.min(SHADES - 1, Math.floor(Math.sqrt(share) * SHADES));
}

/** @param {MouseEvent} event @param {number} size */
function choose({ currentTarget, clientY }, size) {
  const { top, height } = /** @type {Element} */ (currentTarget).getBoundingClientRect();
  const row = Math.floor(((clientY - top) / height) * size);
  if (row >= 0 && row < size) update({ confusedClass: row });
}

/** @param {string[]} labels @param {number[]} said */
function rowOf(labels, said) {
  const all = sum(said);
  const found = said
    .map((count, index) => ({ label: labels[index], count }))
    .filter(({ count }) => count > 0)
    .sort((a, b) => b.count - a.count);
  return html`
    <ul class="bars">
      ${found.slice(0, WORST).map(
        ({ label, count }) => html`
          <li>
            <span>${text.confusionRow(label, count, all)}</span>
            <span class="track"><span class="fill" .style=${`inline-size: ${(count / all) * 100}%`}></span></span>
          </li>
        `,
      )}
    </ul>
  `;
}

/** @param {string[]} labels @param {number[][]} counts */
function worst(labels, counts) {
  const mistakes = counts.flatMap((said, there) =>
    said
      .map((count, index) => ({ there, index, count, share: count / sum(said) }))
      .filter(({ index }) => index !== there),
  );
  mistakes.sort((a, b) => b.share - a.share);
  return html`
    <ul class="bars">
      ${mistakes
        .slice(0, WORST)
        .filter(({ count }) => count > 0)
        .map(
          ({ there, index, share }) => html`
            <li>
              <span>${text.mostConfusedRow(labels[there], labels[index])}</span>
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
