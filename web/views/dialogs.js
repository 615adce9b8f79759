/** What lies over the page: a photo with its answer in full size, and the code for an answer. */

import { answerOf, shown } from "../results.js";
import { settings } from "../settings.js";
import { snippets } from "../snippets.js";
import { leastSure, photoById, update } from "../state.js";
import { text } from "../text.js";
import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { card, chooseByKey } from "./card.js";

/** @import {State, Photo} from "../state.js" */

/** @param {State} state */
export function dialogs(state) {
  return html`${lightbox(state)} ${code(state)}`;
}

/** Open the dialogs that were drawn, over the page and in the order of the document. */
export function openDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) if (!dialog.open) dialog.showModal();
}

/** @param {State} state */
function lightbox(state) {
  const photos = shown(state.photos, state.filter, leastSure()).filter(answerOf);
  const place = photos.findIndex(({ id }) => id === state.openedPhoto);
  if (place < 0) return nothing;
  const photo = photos[place];
  return html`
    <dialog
      class="lightbox"
      aria-label=${photo.name}
      @click=${closeOutside}
      @close=${() => update({ openedPhoto: null })}
      @keydown=${(/** @type {KeyboardEvent} */ event) => steer(event, photos, place)}
    >
      <div class="row apart">
        <div class="row">
          ${stepButton("←", text.previous, photos[place - 1])}
          <span>${text.position(place + 1, photos.length)}</span>
          ${stepButton("→", text.next, photos[place + 1])}
        </div>
        <span class="small keys">${text.keys}</span>
        ${closeButton()}
      </div>
      ${card(photo, state, true)}
    </dialog>
  `;
}

/** @param {string} arrow @param {string} name @param {Photo | undefined} to */
function stepButton(arrow, name, to) {
  return html`
    <button
      class="button round"
      aria-label=${name}
      aria-disabled=${to === undefined}
      @click=${() => to && update({ openedPhoto: to.id })}
    >
      <span aria-hidden="true">${arrow}</span>
    </button>
  `;
}

/** @param {KeyboardEvent} event @param {Photo[]} photos @param {number} place */
function steer(event, photos, place) {
  const { key, target } = event;
  // The keys of a slider move the slider, and those of the article choose a label there.
  if (!(target instanceof Element) || target.matches("input[type=range]")) return;
  const to = photos[place + ({ ArrowLeft: -1, ArrowRight: 1 }[key] ?? 0)];
  if (to && to !== photos[place]) update({ openedPhoto: to.id });
  if (!target.closest("article")) chooseByKey(event, photos[place].id);
}

/** @param {State} state */
function code({ codePhoto }) {
  const photo = codePhoto === null ? undefined : photoById(codePhoto);
  const answer = photo && answerOf(photo);
  if (!answer) return nothing;
  const { endpoint, key, model } = settings();
  return html`
    <dialog
      class="code"
      aria-label=${text.codeTitle}
      @click=${closeOutside}
      @close=${() => update({ codePhoto: null })}
    >
      <div class="row apart">
        <h2>${text.codeTitle}</h2>
        ${closeButton()}
      </div>
      <p class="small">${text.codeOf(photo.name)} ${key ? text.codeKey : nothing}</p>
      ${
        photo.isConverted
          ? html`<p class="notice warned">${text.codeConverted(answer.image.width, answer.image.height)}</p>`
          : nothing
      }
      ${snippets({ url: endpoint || location.origin, hasKey: key !== "", model, name: photo.name, answer }).map(
        ({ language, lines }) => html`
          <section>
            <div class="row apart">
              <h3>${language}</h3>
              <button
                class="button quiet"
                aria-label=${text.named(text.copy, language)}
                @click=${() => copy(language, lines)}
              >
                ${text.copy}
              </button>
            </div>
            <pre tabindex="0" role="region" aria-label=${language}><code>${lines}</code></pre>
          </section>
        `,
      )}
    </dialog>
  `;
}

/** @param {string} name @param {string} lines */
async function copy(name, lines) {
  await navigator.clipboard.writeText(lines);
  update({ announcement: text.copied(name) });
}

function closeButton() {
  return html`<button class="button round" aria-label=${text.close} @click=${close}>
    <span aria-hidden="true">✕</span>
  </button>`;
}

/** @param {Event} event */
function close({ currentTarget }) {
  /** @type {HTMLElement} */ (currentTarget).closest("dialog")?.close();
}

/** A press beside the content hits the dialog itself. @param {Event} event */
function closeOutside({ target }) {
  if (target instanceof HTMLDialogElement) target.close();
}
