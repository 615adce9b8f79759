/** The view for classifying photos. */

import { addressOf } from "../assets.js";
import { add, startOver } from "../classifying.js";
import { OFFERED } from "../images.js";
import { answerOf, isSettledWithout, shown } from "../results.js";
import { connect } from "../service.js";
import { saveSettings, settings } from "../settings.js";
import { leastSure, model, update } from "../state.js";
import { text } from "../text.js";
import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { repeat } from "../vendor/lit-html/directives/repeat.js";
import { card } from "./card.js";
import { actionBar, overview, resetFilter, undo } from "./controls.js";
import { failures } from "./failures.js";
import { select } from "./fields.js";

/** @import {State, Choice} from "../state.js" */

/** Photos in web/samples; all come from scikit-image and are in the public domain (CC0). */
const SAMPLES = /** @type {const} */ (["cat", "coffee", "photographer"]);

/** A camera, in a bar without space for words. */
const CAMERA = html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
  <path d="M4 7h3l2-3h6l2 3h3a1 1 0 0 1 1 1v11a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1V8a1 1 0 0 1 1-1z" />
  <circle cx="12" cy="13" r="4" />
</svg>`;

/** @param {State} state */
export function classifyView(state) {
  if (state.photos.length === 0) return html`${empty(state.models)} ${undo(state)}`;
  const photos = shown(state.photos, state.filter, leastSure());
  const answered = photos.filter((photo) => !isSettledWithout(photo));
  const isAlone = answered.length === 1;
  return html`
    ${overview(state, photos, modelChoice(state.models))} ${photos.some(answerOf) ? warning() : nothing}
    ${photos.length === 0 ? noneLeft() : nothing}
    <ul
      class="cards ${isAlone ? "alone" : ""}"
      tabindex="-1"
      aria-label=${text.photos}
      ?hidden=${answered.length === 0}
    >
      ${repeat(
        answered,
        ({ id }) => id,
        (photo) =>
          html`<li data-stage=${photo.progress.stage}>
            ${card(photo, state, isAlone, () => update({ openedPhoto: photo.id }))}
          </li>`,
      )}
    </ul>
    ${failures(photos.filter(isSettledWithout))} ${undo(state)}
    ${actionBar(state, photos, pickers(text.addPhotos, CAMERA))}
  `;
}

/** The choice of a model, if there are several. @param {Choice | null} models */
function modelChoice(models) {
  if (models === null) return nothing;
  const { usual, names } = models;
  return select(
    text.chooseModel,
    names.map((name) => [name, name]),
    settings().model || usual,
    (name) => chooseModel(name === usual ? "" : name),
  );
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

/** @param {Choice | null} models */
function empty(models) {
  return html`
    <section class="chooser">
      <p class="invitation">${isTouched() ? text.tap : text.drop}</p>
      <div class="row">${pickers(text.choose)}</div>
      <p class="small">${text.privacy}</p>
    </section>
    <section class="samples">
      <h2>${text.samples}</h2>
      <div class="row">${SAMPLES.map(sample)}</div>
    </section>
    <div class="models">${modelChoice(models)}</div>
  `;
}

/** @param {typeof SAMPLES[number]} name */
function sample(name) {
  return html`
    <button class="sample" aria-label=${text.sample(text.sampleNames[name])} @click=${() => addSample(name)}>
      <img src=${addressOf(`samples/${name}.jpg`)} alt="" width="160" height="120" />
    </button>
  `;
}

function isTouched() {
  return matchMedia("(pointer: coarse)").matches;
}

/**
 * The button that opens the choice of files, and on phones the one that opens the camera.
 * @param {string} name
 * @param {unknown} [camera]
 */
function pickers(name, camera = text.camera) {
  return html`
    <button class="button primary" @click=${openPicker}>${name}</button>
    <input hidden type="file" accept=${OFFERED} multiple data-picker="files" @change=${takeChosen} />
    ${
      isTouched()
        ? html`<button class="button" aria-label=${text.camera} @click=${openPicker}>${camera}</button>
            <input
              hidden
              type="file"
              accept="image/*"
              capture="environment"
              data-picker="camera"
              @change=${takeChosen}
            />`
        : nothing
    }
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
  const response = await fetch(addressOf(`samples/${name}.jpg`), { cache: "force-cache" }).catch(() => null);
  add([new File(response?.ok ? [await response.blob()] : [], `${name}.jpg`)]);
}
