/** The view for asking a language model about a photo. */

import { ask, keepDraft, stopAsking } from "../asking.js";
import { update } from "../state.js";
import { text } from "../text.js";
import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { live } from "../vendor/lit-html/directives/live.js";
import { picture } from "./picture.js";

/** @import {State, Photo, Conversation} from "../state.js" */

/** @param {State} state */
export function askView(state) {
  if (state.service.stage === "loading") return html`<p role="status">${text.loading}</p>`;
  if (state.service.stage === "failed") return nothing;
  if (!state.service.model.links.describe) return html`<p>${text.askMissing}</p>`;
  if (state.photos.length === 0) {
    return html`<p>${text.askNothing}</p>
      <a class="button primary" href="#classify">${text.choose}</a>`;
  }
  const chosen = state.photos.find(({ id }) => id === state.askedPhoto) ?? state.photos[0];
  return html`
    <p class="small">${text.askNotice}</p>
    <div class="asking">
      <div>${picture(chosen, null, 0)} ${state.photos.length > 1 ? choices(state.photos, chosen) : nothing}</div>
      <div>${conversation(chosen)} ${form(chosen)}</div>
    </div>
  `;
}

/** @param {readonly Photo[]} photos @param {Photo} chosen */
function choices(photos, chosen) {
  return html`
    <fieldset class="choices">
      <legend>${text.askWhich}</legend>
      ${photos.map(
        ({ id, name, preview }) => html`
          <label title=${name}>
            <input type="radio" name="asked" .checked=${id === chosen.id} @change=${() => update({ askedPhoto: id })} />
            <img src=${preview ?? nothing} alt=${name} width="64" height="64" />
          </label>
        `,
      )}
    </fieldset>
  `;
}

/** @param {Photo} photo */
function conversation({ conversation }) {
  const { turns, question, problem, model: answeredBy } = conversation;
  return html`
    <div class="turns" role="log" aria-label=${text.conversation}>
      ${turns.map((turn) => html`${message(text.you, turn.question, "mine")} ${message("", turn.answer, "theirs")}`)}
      ${
        question === null
          ? nothing
          : html`${message(text.you, question, "mine")}
              <p class="theirs thinking">${text.thinking}</p>`
      }
      ${problem && problem.code !== "cancelled" ? html`<p class="verdict bad">${text.sentence(problem)}</p>` : nothing}
    </div>
    ${answeredBy ? html`<p class="small">${text.answeredBy(answeredBy)}</p>` : nothing}
  `;
}

/** @param {string} author @param {string} text @param {string} side */
function message(author, text, side) {
  return html`<p class=${side}>${author ? html`<span class="unseen">${author}: </span>` : nothing}${text}</p>`;
}

/** @param {Photo} photo */
function form({ id, conversation }) {
  const isWaiting = conversation.question !== null;
  return html`
    <form class="question" @submit=${(/** @type {SubmitEvent} */ event) => send(event, id, conversation.draft)}>
      <label class="field">
        <span>${text.question}</span>
        <textarea
          name="question"
          rows="2"
          maxlength="2000"
          required
          placeholder=${text.askPlaceholder}
          .value=${live(conversation.draft)}
          @input=${(/** @type {Event} */ event) => keepDraft(id, areaIn(event).value)}
          @keydown=${sendOnEnter}
        ></textarea>
      </label>
      ${
        isWaiting
          ? html`<button type="button" class="button" @click=${() => stopAsking(id)}>${text.cancel}</button>`
          : html`<button class="button primary">${text.send}</button>`
      }
    </form>
  `;
}

/** @param {SubmitEvent} event @param {number} id @param {string} draft */
function send(event, id, draft) {
  event.preventDefault();
  const question = draft.trim();
  if (question !== "") void ask(id, question);
}

/** @param {Event} event */
function areaIn({ currentTarget }) {
  return /** @type {HTMLTextAreaElement} */ (currentTarget);
}

/** @param {KeyboardEvent} event */
function sendOnEnter(event) {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  areaIn(event).form?.requestSubmit();
}
