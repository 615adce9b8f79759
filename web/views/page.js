/** The frame around all views. */

import { addressOf } from "../assets.js";
import { UNREACHABLE, connect } from "../service.js";
import { model, update } from "../state.js";
import { text } from "../text.js";
import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { askView } from "./ask.js";
import { classifyView } from "./classify.js";
import { compareView } from "./compare.js";
import { dialogs } from "./dialogs.js";
import { settingsView } from "./settings.js";
import { offersTeach, teachView } from "./teach_tab.js";

/** @import {State} from "../state.js" */

const VIEWS = {
  classify: classifyView,
  compare: compareView,
  model: lazyModelView,
  teach: teachView,
  ask: askView,
  settings: settingsView,
};

/** @typedef {keyof typeof VIEWS} View */

/** Return the view of a location's hash. @param {string} hash @returns {View} */
export function viewOf(hash) {
  const name = hash.slice(1);
  return Object.hasOwn(VIEWS, name) ? /** @type {View} */ (name) : "classify";
}

/** @type {((state: State) => unknown) | null} */
let modelView = null;

/** The view of the model, which is loaded when it is first shown: it is large, and few visits open it. */
/** @param {State} state */
function lazyModelView(state) {
  if (modelView) return modelView(state);
  void import("./model.js").then((loaded) => {
    modelView = loaded.modelView;
    update({});
  });
  return html`<p role="status">${text.loading}</p>`;
}

/** @param {State} state */
export function page(state) {
  const view = /** @type {View} */ (state.view);
  return html`
    <a class="skip" href="#main" @click=${skip}>${text.skip}</a>
    <header class="top">
      <a class="brand" href="#" aria-label="litelens">
        <img src=${addressOf("favicon.svg")} alt="" width="28" height="28" />
        <span translate="no">litelens</span>
      </a>
      <nav aria-label=${text.nav.label}>
        ${link("classify", ["classify", "compare"], view)} ${offersTeach() ? link("teach", ["teach"], view) : nothing}
        ${link("model", ["model"], view)} ${model()?.links.describe ? link("ask", ["ask"], view) : nothing}
        ${link("settings", ["settings"], view)}
      </nav>
    </header>
    <main id="main" tabindex="-1">
      <h1 tabindex="-1" class=${view === "classify" ? "unseen" : ""}>${text.titles[view]}</h1>
      ${view === "settings" ? nothing : connectionProblem(state)} ${VIEWS[view](state)}
    </main>
    <div class="unseen" role="status">${state.announcement}</div>
    ${dialogs(state)} ${state.isDraggedOver ? html`<div class="curtain"><p>${text.dropNow}</p></div>` : nothing}
  `;
}

/** @param {"classify" | "teach" | "model" | "ask" | "settings"} name @param {View[]} views @param {View} shown */
function link(name, views, shown) {
  const isHere = views.includes(shown);
  return html`<a href="#${name}" aria-current=${isHere ? "page" : nothing}>${text.nav[name]}</a>`;
}

/** The notice that the service does not answer. @param {State} state */
function connectionProblem({ service }) {
  if (service.stage !== "failed") return nothing;
  return html`
    <div class="notice bad" role="alert">
      <p>${text.sentence(service.problem)} ${UNREACHABLE.has(service.problem.code) ? text.byItself : nothing}</p>
      <div class="row">
        <button class="button" @click=${connect}>${text.tryAgain}</button>
        <a class="button" href="#settings">${text.openSettings}</a>
      </div>
    </div>
  `;
}

/** Focus the content. A plain link would change the hash, which names the view. @param {Event} event */
function skip(event) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}
