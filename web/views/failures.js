/** Photos without an answer, failed or cancelled: one row each that says why. */

import { retry } from "../classifying.js";
import { canRetry } from "../results.js";
import { text } from "../text.js";
import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { repeat } from "../vendor/lit-html/directives/repeat.js";
import { removeButton } from "./card.js";

/** @import {Photo} from "../state.js" */

/** @param {readonly Photo[]} photos failed and cancelled ones */
export function failures(photos) {
  if (photos.length === 0) return nothing;
  const again = photos.filter(canRetry).map(({ id }) => id);
  return html`
    <section class="panel failures" id="failures" tabindex="-1" aria-label=${text.settled}>
      <div class="row apart">
        <h2>${text.failures}</h2>
        ${
          again.length > 1
            ? html`<button class="button" @click=${() => retry(again)}>${text.retryFailed(again.length)}</button>`
            : nothing
        }
      </div>
      <ul>
        ${repeat(photos, ({ id }) => id, row)}
      </ul>
    </section>
  `;
}

/** @param {Photo} photo */
function row(photo) {
  const { progress, name, id } = photo;
  const problem = progress.stage === "failed" ? progress.problem : null;
  return html`
    <li data-stage=${progress.stage}>
      <article class="failure" tabindex="-1" aria-label=${name}>
        <div>
          <p class="name" title=${name}>${name}</p>
          <p class="small ${problem ? "bad" : ""}">${problem ? text.sentence(problem) : text.cancelled}</p>
        </div>
        <div class="row">
          ${
            problem?.code === "forbidden"
              ? html`<a class="button quiet" href="#settings">${text.openSettings}</a>`
              : nothing
          }
          ${
            canRetry(photo)
              ? html`<button class="button quiet" @click=${() => retry([id])}>
                  ${text.tryAgain}<span class="unseen">: ${name}</span>
                </button>`
              : nothing
          }
          ${removeButton(photo)}
        </div>
      </article>
    </li>
  `;
}
