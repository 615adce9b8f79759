/** Trying what was learned: photos, and the webcam live. */

import { OFFERED } from "../images.js";
import { tryPhotos } from "../teaching_model.js";
import { state } from "../teaching_state.js";
import { cameraOf } from "../teaching_camera.js";
import { text } from "../text.js";
import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { repeat } from "../vendor/lit-html/directives/repeat.js";
import { cameraButton, cameraPanel } from "./teach_camera.js";
import { openPicker, taken, teachPhoto } from "./teach_classes.js";

/** @import {Answer} from "../state.js" */
/** @import {Learned, Trial} from "../teaching_state.js" */

/** The number of labels that are shown with bars. */
const SHOWN = 4;

/** @param {Learned} learned */
export function tryPanel(learned) {
  const { over, trials } = state();
  const live = cameraOf("try");
  return html`
    <section class="teach-panel ${over === "try" ? "over" : ""}" data-place="try" aria-labelledby="teach-try">
      <h2 id="teach-try">${text.teach.stepTry}</h2>
      ${cameraPanel("try")} ${live?.answer ? html`<div class="teach-live">${answered(live.answer)}</div>` : nothing}
      <div class="teach-sources">
        ${trials.length === 0 && !live ? html`<p>${text.teach.tryHere}</p>` : nothing}
        <div class="row">
          <button class="button primary" @click=${openPicker}>${text.teach.tryPhotos}</button>
          <input
            hidden
            type="file"
            accept=${OFFERED}
            multiple
            data-picker="teach-try"
            @change=${(/** @type {Event} */ event) => tryPhotos(taken(event))}
          />
          ${cameraButton("try", "")}
        </div>
      </div>
      <ul class="teach-trials">
        ${repeat(
          trials,
          ({ id }) => id,
          (trial) => html`<li>${tried(trial)}</li>`,
        )}
      </ul>
      ${learned.recipe.references === 0 ? html`<p class="small">${text.teach.noUnfamiliar}</p>` : nothing}
    </section>
  `;
}

/** @param {Trial} trial */
function tried({ url, answer, problem }) {
  return html`
    ${teachPhoto(url)}
    <div>
      ${
        problem
          ? html`<p class="bad">${text.sentence(problem)}</p>`
          : answer
            ? answered(answer)
            : html`<p class="small">${text.teach.looking}</p>`
      }
    </div>
  `;
}

/** @param {Answer} answer */
function answered({ predictions, uncertain, unfamiliar }) {
  const { before, label: best, after } = text.headline(predictions[0].label, !uncertain);
  return html`
    <p class="teach-answer">
      ${unfamiliar ? html`<strong>${text.sureness.unfamiliar}</strong>` : html`${before}<strong>${best}</strong>${after}`}
    </p>
    <ul class="teach-bars">
      ${predictions.slice(0, SHOWN).map(
        ({ label, confidence }) => html`
          <li>
            <span>${label}</span>
            <span class="teach-track"><span .style=${`inline-size: ${confidence * 100}%`}></span></span>
            <span>${text.wholePercent(confidence)}</span>
          </li>
        `,
      )}
    </ul>
  `;
}
