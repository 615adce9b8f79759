/** The table of classes with their metrics. */

import { current, update } from "../state.js";
import { text } from "../text.js";
import { html } from "../vendor/lit-html/lit-html.js";

/** @import {ClassTable, Model} from "../state.js" */

/** @typedef {{label: string, group?: string, images?: number, precision?: number, recall?: number, f1?: number}} Row */
/** @typedef {keyof typeof text.columns} Column */

/** @param {Model} model @param {ClassTable} table */
export function classes({ manifest, metrics }, table) {
  const measured = metrics?.classes ?? [];
  /** @type {Row[]} */
  const all = measured.length > 0 ? measured : manifest.labels.map((/** @type {string} */ label) => ({ label }));
  const rows = all.map((row) => ({ ...row, group: manifest.groups?.[row.label] }));
  const columns = /** @type {Column[]} */ (Object.keys(text.columns)).filter((column) =>
    rows.some((row) => row[column] !== undefined),
  );
  const shown = rows.filter((row) => matches(row, table.text)).sort((a, b) => compare(a, b, table));
  return html`
    <section class="panel">
      <h2>${text.classes}</h2>
      <label class="field">
        <span>${text.classFilter}</span>
        <input
          type="search"
          .value=${table.text}
          @input=${(/** @type {Event} */ event) => change({ text: valueOf(event) })}
        />
      </label>
      <div class="scroller tall" tabindex="0" role="region" aria-label=${text.classes}>
        <table>
          <thead>
            <tr>
              ${columns.map((column) => heading(column, table))}
            </tr>
          </thead>
          <tbody>
            ${shown.map(
              (row) =>
                html`<tr>
                  ${columns.map((column) => cell(row, column))}
                </tr>`,
            )}
          </tbody>
        </table>
        ${shown.length === 0 ? html`<p>${text.noClass}</p>` : ""}
      </div>
    </section>
  `;
}

/** @param {Column} column @param {ClassTable} table */
function heading(column, { column: sorted, isDescending }) {
  const isSorted = column === sorted;
  const sort = isSorted ? (isDescending ? "descending" : "ascending") : "none";
  const press = () => change({ column, isDescending: isSorted ? !isDescending : isNumber(column) });
  return html`
    <th scope="col" aria-sort=${sort} class=${isNumber(column) ? "number" : ""}>
      <button class="sorter" @click=${press}>${text.columns[column]}</button>
    </th>
  `;
}

/** @param {Row} row @param {Column} column */
function cell(row, column) {
  const value = row[column];
  if (column === "label") return html`<th scope="row">${text.label(`${value}`)}</th>`;
  if (column === "group") return html`<td>${value ?? ""}</td>`;
  if (column === "images") return html`<td class="number">${text.number(Number(value))}</td>`;
  const share = Number(value);
  return html`
    <td class="number">
      <span class="track"><span class="fill" .style=${`inline-size: ${share * 100}%`}></span></span>
      <span class="figure">${text.percent(share)}</span>
    </td>
  `;
}

/** @param {Column} column */
function isNumber(column) {
  return column !== "label" && column !== "group";
}

/** @param {Row} row @param {string} sought */
function matches({ label, group }, sought) {
  return `${label} ${text.label(label)} ${group ?? ""}`.toLowerCase().includes(sought.trim().toLowerCase());
}

/** @param {Row} a @param {Row} b @param {ClassTable} table */
function compare(a, b, { column, isDescending }) {
  const [first, second] = [a[/** @type {Column} */ (column)], b[/** @type {Column} */ (column)]];
  const order =
    typeof first === "number" && typeof second === "number"
      ? first - second
      : `${first ?? ""}`.localeCompare(`${second ?? ""}`);
  return (isDescending ? -order : order) || a.label.localeCompare(b.label);
}

/** @param {Partial<ClassTable>} changes */
function change(changes) {
  update({ classTable: { ...current().classTable, ...changes } });
}

/** @param {Event} event */
function valueOf({ target }) {
  return /** @type {HTMLInputElement} */ (target).value;
}
