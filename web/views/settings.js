/** The view of the settings. */

import { startOver } from "../classifying.js";
import { MAX_BYTES, MAX_PHOTOS, forgetEverything } from "../keeping.js";
import { connect } from "../service.js";
import { endpointOf, originOf, saveSettings, settings } from "../settings.js";
import { model, update } from "../state.js";
import { text } from "../text.js";
import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { entries, select } from "./fields.js";

/** @import {State, Service} from "../state.js" */

/** The characters that a header can contain. */
const KEY = /^[!-~]*$/;

/** @param {State} state */
export function settingsView(state) {
  const { endpoint, key, theme, largePhotos } = settings();
  return html`<div class="panels">
    <form class="panel" novalidate @submit=${submit}>
      <h2>${text.service}</h2>
      ${input("endpoint", "url", endpoint, text.endpoint, text.endpointHint)}
      ${input("key", "password", key, text.key, text.keyHint)}
      <button class="button primary">${text.saveSettings}</button>
      ${connection(state.service)}
    </form>
    <section class="panel">
      <h2>${text.appearance}</h2>
      ${select(text.theme, entries(text.themes), theme, (theme) => saveSettings({ theme }))}
      ${
        model()?.links.uploads
          ? select(text.largePhotos, entries(text.largePhotosOptions), largePhotos, (largePhotos) =>
              saveSettings({ largePhotos }),
            )
          : nothing
      }
    </section>
    <section class="panel">
      <h2>${text.keeping}</h2>
      <p>${state.isKeeping ? text.keepingHint(MAX_PHOTOS, MAX_BYTES) : text.keepingNothing}</p>
      <div><button class="button" @click=${forgetEverything}>${text.forget}</button></div>
    </section>
  </div>`;
}

/** @param {string} name @param {string} type @param {string} value @param {string} label @param {string} hint */
function input(name, type, value, label, hint) {
  return html`<div>
    <label class="field">
      <span>${label}</span>
      <input
        name=${name}
        type=${type}
        value=${value}
        autocomplete="off"
        spellcheck="false"
        aria-describedby="${name}-hint"
        @input=${clearValidity}
      />
    </label>
    <p class="small" id="${name}-hint">${hint}</p>
  </div>`;
}

/** @param {Service} service */
function connection(service) {
  if (service.stage === "loading") return html`<p role="status">${text.connecting}</p>`;
  if (service.stage === "failed") return html`<p class="bad" role="alert">${text.sentence(service.problem)}</p>`;
  const { name, version } = service.model.manifest;
  return html`<p class="good" role="status">${text.connected(name, version)}</p>`;
}

/** @param {SubmitEvent} event */
function submit(event) {
  event.preventDefault();
  const form = /** @type {HTMLFormElement} */ (event.currentTarget);
  const field = (/** @type {string} */ name) => /** @type {HTMLInputElement} */ (form.elements.namedItem(name));
  const [endpoint, key] = [endpointOf(field("endpoint").value), field("key").value.trim()];
  field("endpoint").setCustomValidity(endpoint === null ? text.endpointWrong : "");
  field("key").setCustomValidity(KEY.test(key) ? "" : text.keyWrong);
  if (!form.reportValidity() || endpoint === null) return;
  const before = settings();
  // Do not send a key to another server: if only the endpoint changes, forget the key.
  const isForAnother = originOf(endpoint) !== originOf(before.endpoint) && key === before.key;
  field("key").value = isForAnother ? "" : key;
  saveSettings({ endpoint, key: isForAnother ? "" : key });
  if (endpoint === before.endpoint) return void connect();
  saveSettings({ model: "" });
  update({ models: null });
  void connect();
  startOver();
}

/** @param {Event} event */
function clearValidity({ target }) {
  /** @type {HTMLInputElement} */ (target).setCustomValidity("");
}
