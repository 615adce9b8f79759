/** Form fields of several views. */

import { text } from "../text.js";
import { html } from "../vendor/lit-html/lit-html.js";
import { live } from "../vendor/lit-html/directives/live.js";

/** @param {string} label @param {number} value 0 to 1 @param {(value: number) => void} onInput */
export function slider(label, value, onInput) {
  const take = (/** @type {Event} */ { target }) => onInput(Number(/** @type {HTMLInputElement} */ (target).value));
  return html`
    <label class="field slider">
      <span>${label} <span class="value" aria-hidden="true">${text.percent(value)}</span></span>
      <input
        type="range"
        min="0"
        max="1"
        step="0.01"
        aria-valuetext=${text.percent(value)}
        .value=${live(`${value}`)}
        @input=${take}
      />
    </label>
  `;
}

/**
 * @template {string} T
 * @param {string} label
 * @param {[T, string][]} options each value and its name, in this order
 * @param {T} chosen
 * @param {(value: T) => void} onChoose
 */
export function select(label, options, chosen, onChoose) {
  const choose = (/** @type {Event} */ { target }) =>
    onChoose(/** @type {T} */ (/** @type {HTMLSelectElement} */ (target).value));
  return html`
    <label class="field">
      <span>${label}</span>
      <select @change=${choose}>
        ${options.map(([value, name]) => html`<option value=${value} .selected=${value === chosen}>${name}</option>`)}
      </select>
    </label>
  `;
}

/** Return the options of a select from names by value. */
/** @template {string} T @param {Record<T, string>} names @returns {[T, string][]} */
export function entries(names) {
  return /** @type {[T, string][]} */ (Object.entries(names));
}

/** Return the options of a select from labels. @param {string[]} labels @returns {[string, string][]} */
export function named(labels) {
  return labels.map((label) => [label, text.label(label)]);
}
