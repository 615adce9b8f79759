/** The view for classifying photos. */

import { add, startOver } from "../classifying.js";
import { answerOf, shown } from "../results.js";
import { connect } from "../service.js";
import { saveSettings, settings } from "../settings.js";
import { model, threshold } from "../state.js";
import { text } from "../text.js";
import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { repeat } from "../vendor/lit-html/directives/repeat.js";
import { card } from "./card.js";
import { controls, resetFilter } from "./controls.js";
import { select } from "./fields.js";

/** @import {State, Choice} from "../state.js" */

/** Photos in web/samples; all come from scikit-image and are in the public domain (CC0). */
const SAMPLES = /** @type {const} */ (["cat", "coffee", "photographer"]);

/** @param {State} state */
export function classifyView(state) {
  const photos = shown(state.photos, state.filter, threshold());
  const isEmpty = state.photos.length === 0;
  const hasAnswers = photos.some(answerOf);
  return html`
    ${modelChoice(state.models)} ${chooser(isEmpty)} ${isEmpty ? samples() : controls(state, photos)}
    ${!isEmpty && photos.length === 0 ? noneLeft() : nothing} ${hasAnswers ? warning() : nothing}
    ${hasAnswers ? html`<p class="small">${text.hint}</p>` : nothing}
    <ul class="cards" tabindex="-1" aria-label=${text.photos} ?hidden=${photos.length === 0}>
      ${repeat(
        photos,
        ({ id }) => id,
        (photo) => card(photo, state),
      )}
    </ul>
  `;
}

/** The choice of a model, if there are several. @param {Choice | null} models */
function modelChoice(models) {
  if (models === null) return nothing;
  const { usual, names } = models;
  return html`<div class="row fields">
    ${select(
      text.chooseModel,
      names.map((name) => [name, name]),
      settings().model || usual,
      (name) => chooseModel(name === usual ? "" : name),
    )}
  </div>`;
}

/** @param {string} name of a model; empty for the default one */
function chooseModel(name) {
  saveSettings({ model: name });
  void connect();
  startOver();
}

/** The notice above the answers of a model with warnings in its manifest. */
function warning() {
  if (!model()?.manifest.warnings?.length) return nothing;
  return html`
    <div class="notice warned">
      <p>${text.warnedAnswers}</p>
      <a href="#model">${text.readWarning}</a>
    </div>
  `;
}

/** @param {boolean} isLarge */
function chooser(isLarge) {
  const isTouched = matchMedia("(pointer: coarse)").matches;
  return html`
    <section class="notice chooser ${isLarge ? "large" : ""}">
      <p>${isTouched ? text.tap : text.drop}</p>
      <div class="row">
        <button class="button primary" @click=${openPicker}>${text.choose}</button>
        <input hidden type="file" accept="image/*" multiple data-picker="files" @change=${takeChosen} />
        ${isTouched ? camera() : nothing}
      </div>
      ${isLarge ? html`<p class="small">${text.privacy}</p>` : sampleButtons()}
    </section>
  `;
}

/** The button that opens a phone's camera. */
function camera() {
  return html`
    <button class="button" @click=${openPicker}>${text.camera}</button>
    <input hidden type="file" accept="image/*" capture="environment" data-picker="camera" @change=${takeChosen} />
  `;
}

function samples() {
  return html`
    <section class="samples">
      <h2>${text.samples}</h2>
      ${sampleButtons()}
    </section>
  `;
}

function sampleButtons() {
  return html`
    <div class="row">
      ${SAMPLES.map(
        (name) => html`
          <button class="sample" aria-label=${text.sample(text.sampleNames[name])} @click=${() => addSample(name)}>
            <img src="samples/${name}.jpg" alt="" width="160" height="120" />
          </button>
        `,
      )}
    </div>
  `;
}

function noneLeft() {
  return html`
    <div class="notice">
      <p>${text.nothingShown}</p>
      <button class="button" @click=${resetFilter}>${text.resetFilters}</button>
    </div>
  `;
}

/** Open the file input, which is the button's next sibling. @param {Event} event */
function openPicker({ currentTarget }) {
  const input = /** @type {HTMLElement} */ (currentTarget).nextElementSibling;
  /** @type {HTMLInputElement} */ (input).click();
}

/** @param {Event} event */
function takeChosen({ target }) {
  const input = /** @type {HTMLInputElement} */ (target);
  add([...(input.files ?? [])]);
  // Cleared, so that the same photo can be chosen again.
  input.value = "";
}

/** @param {string} name */
async function addSample(name) {
  // The page already shows it, so it is in the cache, even offline.
  const response = await fetch(`samples/${name}.jpg`, { cache: "force-cache" }).catch(() => null);
  add([new File(response?.ok ? [await response.blob()] : [], `${name}.jpg`)]);
}
