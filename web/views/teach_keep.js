/** Keeping what was learned, and what to do next. */

import { startOver } from "../classifying.js";
import { connect } from "../service.js";
import { saveSettings } from "../settings.js";
import { learn } from "../teaching.js";
import { download, keep, modelNames } from "../teaching_model.js";
import { change, state } from "../teaching_state.js";
import { text } from "../text.js";
import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { live } from "../vendor/lit-html/directives/live.js";

/** @import {Learned} from "../teaching_state.js" */

const MAX_NAME = 64;

/** @param {Learned} learned */
export function keepPanel(learned) {
  const { isOutdated, kept } = state();
  return html`
    <section class="teach-panel" aria-labelledby="teach-keep">
      <h2 id="teach-keep">${text.teach.stepKeep}</h2>
      ${isOutdated ? outdated() : form(learned)} ${kept ? next(kept) : nothing}
    </section>
  `;
}

function outdated() {
  return html`
    <p>${text.teach.keepOutdated}</p>
    <button class="button" ?disabled=${state().isLearning} @click=${learn}>${text.teach.learnAgain}</button>
  `;
}

/** @param {Learned} learned */
function form({ classes }) {
  const { modelName, isKeeping, problems } = state();
  const name = modelName ?? nameOf(classes.map(({ label }) => label));
  const isKnown = modelNames().includes(name) && state().kept !== name;
  return html`
    <form class="teach-keep" @submit=${(/** @type {Event} */ event) => submit(event, name)}>
      <label class="field">
        <span>${text.teach.modelName}</span>
        <input
          required
          maxlength=${MAX_NAME}
          pattern="[a-z0-9][a-z0-9_\\-]*"
          title=${text.teach.modelNameHint}
          autocomplete="off"
          spellcheck="false"
          .value=${live(name)}
          @input=${(/** @type {Event} */ { target }) => change({ modelName: /** @type {HTMLInputElement} */ (target).value })}
        />
      </label>
      <div class="row">
        <button class="button primary" ?disabled=${isKeeping}>${text.teach.keep}</button>
        <button type="button" class="button" @click=${() => download(name)}>${text.teach.download}</button>
      </div>
      ${isKnown ? html`<p class="small">${text.teach.nextVersion(name)}</p>` : nothing}
      ${isKeeping ? html`<progress aria-label=${text.teach.keeping}></progress>` : nothing}
      ${problems.keep ? html`<p class="bad" role="alert">${text.sentence(problems.keep)}</p>` : nothing}
    </form>
  `;
}

/** @param {Event} event @param {string} name */
function submit(event, name) {
  event.preventDefault();
  void keep(name);
}

/** Make a model's name from those of its classes. @param {string[]} labels */
function nameOf(labels) {
  const plain = labels.join("-").normalize("NFKD").toLowerCase();
  const name = plain.replace(/\p{Mark}/gu, "").replace(/[^a-z0-9]+/g, "-");
  return name.replace(/^-+/, "").slice(0, 40).replace(/-+$/, "") || "my-model";
}

/** @param {string} name */
function next(name) {
  return html`
    <div class="teach-next">
      <p><strong>${text.teach.kept(name)}</strong></p>
      <button class="button primary" @click=${() => use(name)}>${text.teach.use}</button>
      <p>${text.teach.nextClassify}</p>
      ${line(text.teach.commands.classify(name))}
      <p>${text.teach.nextModel}</p>
      ${line(text.teach.commands.model(name))}
      <p>${text.teach.nextDeploy}</p>
      ${line(text.teach.commands.deploy)}
    </div>
  `;
}

/** A line with a button that copies it. @param {string} code */
function line(code) {
  const isCopied = state().copied === code;
  return html`
    <div class="teach-line">
      <code translate="no">${code}</code>
      <button class="button quiet" @click=${() => copy(code)}>
        ${isCopied ? text.teach.copiedLine : text.teach.copyLine}<span class="unseen">: ${code}</span>
      </button>
    </div>
  `;
}

/** @param {string} code */
async function copy(code) {
  await navigator.clipboard.writeText(code).then(
    () => change({ copied: code }, text.teach.copiedLine),
    () => undefined,
  );
}

/** Classify photos with the model. @param {string} name */
function use(name) {
  saveSettings({ model: name });
  void connect();
  startOver();
  location.hash = "";
}
