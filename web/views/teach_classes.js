/** The classes of the draft, with their photos. */

import { OFFERED } from "../images.js";
import { GOOD_PHOTOS, addPhotos, nameClass, photoUrl, removeClass, removePhoto, undoRemoval } from "../teaching.js";
import { changeClass, state } from "../teaching_state.js";
import { text } from "../text.js";
import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { live } from "../vendor/lit-html/directives/live.js";
import { repeat } from "../vendor/lit-html/directives/repeat.js";
import { cameraButton, cameraPanel } from "./teach_camera.js";

/** @import {TaughtClass} from "../teaching_state.js" */

/** The number of photos that are shown before the others are asked for. */
const SHOWN = 11;

export function classList() {
  return html`
    <ul class="teach-classes">
      ${repeat(
        state().classes,
        ({ key }) => key,
        (each, index) => html`<li>${card(each, index)}</li>`,
      )}
    </ul>
  `;
}

/** @param {TaughtClass} shown @param {number} index */
function card(shown, index) {
  const { key, name, typed, photos, nameProblem } = shown;
  const title = name || text.teach.className(index + 1);
  return html`
    <article
      class="teach-card ${state().over === key ? "over" : ""}"
      data-place=${key}
      tabindex="-1"
      aria-label=${title}
    >
      <div class="teach-head">
        <input
          id="teach-name-${key}"
          aria-label=${text.teach.nameOf(index + 1)}
          aria-invalid=${nameProblem ? "true" : nothing}
          aria-describedby=${nameProblem ? `teach-problem-${key}` : nothing}
          placeholder=${index < 2 ? text.teach.namePlaceholders[index] : text.teach.namePlaceholder}
          maxlength="60"
          autocomplete="off"
          spellcheck="false"
          .value=${live(typed ?? name)}
          @input=${(/** @type {Event} */ event) => changeClass(key, { typed: inputOf(event).value })}
          @change=${(/** @type {Event} */ event) => nameClass(key, inputOf(event).value)}
        />
        ${photos.length > 0 ? html`<span class="teach-count">${text.teach.photos(photos.length)}</span>` : nothing}
        ${removal(shown, title)}
      </div>
      ${nameProblem ? html`<p id="teach-problem-${key}" class="small bad">${text.sentence(nameProblem)}</p>` : nothing}
      ${cameraPanel(key)} ${photos.length > 0 ? thumbnails(shown) : nothing} ${sources(shown, title)} ${progress(shown)}
      ${refusals(shown)}
    </article>
  `;
}

/** A photo, or a sentence if the browser cannot show it, such as a HEIC. @param {string} url */
export function teachPhoto(url) {
  return html`
    <span class="teach-photo">
      <img src=${url} alt="" loading="lazy" decoding="async" @load=${markShown} @error=${markShown} />
      <span class="small">${text.undrawn}</span>
    </span>
  `;
}

/** Mark a photo that the browser could not load, unless its address is still unknown. @param {Event} event */
function markShown({ type, target }) {
  const image = /** @type {HTMLImageElement} */ (target);
  const isUndrawn = type === "error" && image.getAttribute("src") !== "";
  image.parentElement?.classList.toggle("undrawn", isUndrawn);
}

/** @param {Event} event */
function inputOf(event) {
  return /** @type {HTMLInputElement} */ (event.currentTarget);
}

/** @param {TaughtClass} shown @param {string} title */
function removal({ key, isSaved, photos, asksRemoval }, title) {
  if (!isSaved && state().classes.length < 3) return nothing;
  const ask = () => (photos.length > 0 ? changeClass(key, { asksRemoval: true }) : removeClass(key));
  if (!asksRemoval) {
    return html`<button class="button quiet" aria-label=${text.named(text.remove, title)} @click=${ask}>
      <span aria-hidden="true">✕</span>
    </button>`;
  }
  return html`
    <div class="row teach-ask" role="group" aria-label=${text.teach.removeAsk(photos.length)}>
      <span>${text.teach.removeAsk(photos.length)}</span>
      <button class="button" @click=${() => removeClass(key)}>${text.remove}</button>
      <button class="button quiet" @click=${() => changeClass(key, { asksRemoval: false })}>${text.teach.no}</button>
    </div>
  `;
}

/** @param {TaughtClass} shown */
function thumbnails({ key, name, photos, showsAll }) {
  const isCut = !showsAll && photos.length > SHOWN + 1;
  // The newest first, so that it is seen that a photo was added.
  const newest = photos.map((photo, index) => ({ photo, number: index + 1 })).reverse();
  return html`
    <ul class="teach-thumbs">
      ${repeat(
        isCut ? newest.slice(0, SHOWN) : newest,
        ({ photo }) => photo,
        ({ photo, number }) => html`
          <li>
            ${teachPhoto(photoUrl(name, photo))}
            <button
              title=${text.remove}
              aria-label=${text.teach.removePhoto(number, name)}
              @click=${() => removePhoto(name, photo)}
            >
              <span aria-hidden="true">✕</span>
            </button>
          </li>
        `,
      )}
      ${
        isCut
          ? html`<li>
              <button class="teach-more" @click=${() => changeClass(key, { showsAll: true })}>
                ${text.teach.showAll(photos.length - SHOWN)}
              </button>
            </li>`
          : nothing
      }
    </ul>
  `;
}

/** @param {TaughtClass} shown @param {string} title */
function sources({ key, photos }, title) {
  return html`
    <div class="teach-sources">
      ${photos.length === 0 ? html`<p>${text.teach.dropHere}</p>` : nothing}
      <div class="row">
        <button class="button" @click=${openPicker}>
          ${text.teach.choosePhotos}<span class="unseen">: ${title}</span>
        </button>
        <input
          hidden
          type="file"
          accept=${OFFERED}
          multiple
          data-picker="teach-${key}"
          @change=${(/** @type {Event} */ event) => addPhotos(key, taken(event))}
        />
        ${cameraButton(key, title)}
      </div>
    </div>
  `;
}

/** Open the file input after the button. @param {Event} event */
export function openPicker({ currentTarget }) {
  const input = /** @type {HTMLElement} */ (currentTarget).nextElementSibling;
  /** @type {HTMLInputElement} */ (input).click();
}

/** Return the chosen files, and let the same ones be chosen again. @param {Event} event */
export function taken({ currentTarget }) {
  const input = /** @type {HTMLInputElement} */ (currentTarget);
  const files = [...(input.files ?? [])];
  input.value = "";
  return files;
}

/** @param {TaughtClass} shown */
function progress({ key, name, photos, adding }) {
  const { removed } = state();
  if (adding && adding.total > 1) {
    const label = text.teach.adding(adding.done, adding.total);
    return html`<p class="small">${label}</p>
      <progress aria-label=${text.named(label, name)} max=${adding.total} value=${adding.done}></progress>`;
  }
  if (removed?.key === key) {
    return html`<p class="small row">
      <span>${text.teach.photoRemoved}</span>
      <button class="button quiet" @click=${undoRemoval}>${text.teach.undoRemoval}</button>
    </p>`;
  }
  const missing = GOOD_PHOTOS - photos.length;
  return photos.length > 0 && missing > 0 ? html`<p class="small">${text.teach.morePhotos(missing)}</p>` : nothing;
}

/** @param {TaughtClass} shown */
function refusals({ key, refused }) {
  if (refused.length === 0) return nothing;
  return html`
    <div class="teach-refused" role="alert">
      <div class="row apart">
        <strong>${text.teach.refused(refused.length)}</strong>
        <button class="button quiet" @click=${() => changeClass(key, { refused: [] })}>${text.teach.dismiss}</button>
      </div>
      <ul>
        ${refused.slice(0, 5).map(({ file, problem }) => html`<li><b>${file}</b> ${text.sentence(problem)}</li>`)}
      </ul>
    </div>
  `;
}
