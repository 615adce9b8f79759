/** The webcam, as it is shown in a class or in the place to try. */

import { cameraOf, close, open, press, release, take, video } from "../teaching_camera.js";
import { text } from "../text.js";
import { html, nothing } from "../vendor/lit-html/lit-html.js";

/** @param {number | "try"} owner @param {string} title of the class, or empty */
export function cameraButton(owner, title) {
  const camera = cameraOf(owner);
  const isOn = camera !== null && camera.stage !== "failed";
  return html`
    <button class="button" aria-pressed=${isOn} @click=${() => (isOn ? close() : open(owner))}>
      ${isOn ? text.teach.cameraOff : text.teach.cameraOn}${title ? html`<span class="unseen">: ${title}</span>` : nothing}
    </button>
  `;
}

/** @param {number | "try"} owner */
export function cameraPanel(owner) {
  const camera = cameraOf(owner);
  if (!camera) return nothing;
  if (camera.problem) return html`<p class="teach-notice" role="alert">${text.sentence(camera.problem)}</p>`;
  if (camera.stage === "asking") return html`<p class="small" role="status">${text.teach.cameraAsking}</p>`;
  return html` <div class="teach-camera">${video} ${owner === "try" ? nothing : shutter(owner)}</div> `;
}

/** @param {PointerEvent} event @param {number} key */
function hold({ button, pointerId, currentTarget }, key) {
  if (button !== 0) return;
  // So that the end of the press is noticed beside the button too.
  /** @type {HTMLElement} */ (currentTarget).setPointerCapture(pointerId);
  press(key);
}

/** The button that takes photos while it is held. @param {number} key */
function shutter(key) {
  const isKey = (/** @type {KeyboardEvent} */ { key }) => key === " " || key === "Enter";
  return html`
    <button
      class="button primary teach-shutter"
      @pointerdown=${(/** @type {PointerEvent} */ event) => hold(event, key)}
      @pointerup=${release}
      @pointercancel=${release}
      @blur=${release}
      @contextmenu=${(/** @type {Event} */ event) => event.preventDefault()}
      @keydown=${(/** @type {KeyboardEvent} */ event) => {
        if (!isKey(event)) return;
        event.preventDefault();
        if (!event.repeat) press(key);
      }}
      @keyup=${(/** @type {KeyboardEvent} */ event) => {
        if (!isKey(event)) return;
        event.preventDefault();
        release();
      }}
      @click=${(/** @type {PointerEvent} */ event) => event.detail === 0 && take(key)}
    >
      ${text.teach.shutter}
    </button>
    <p class="small">${text.teach.shutterHint}</p>
  `;
}
