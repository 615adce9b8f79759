/** The controls for all photos: threshold, filters and export. */

import { remove, retry } from "../classifying.js";
import { answerOf, isUncertain, isUnderWay, toCsv, toJson } from "../results.js";
import { save } from "../saving.js";
import { EVERYTHING, current, model, threshold, update } from "../state.js";
import { text } from "../text.js";
import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { entries, named, select, slider } from "./fields.js";

/** @import {State, Photo, Filter} from "../state.js" */

export function resetFilter() {
  update({ filter: { ...EVERYTHING, order: current().filter.order } });
}

/** @param {State} state @param {Photo[]} shown the photos that match the filter, sorted */
export function controls(state, shown) {
  return html`
    <section class="panel controls" tabindex="-1" aria-label=${text.controls}>
      <div class="row apart">${summary(state, shown)} ${actions(state, shown)}</div>
      <details ?open=${matchMedia("(min-width: 700px)").matches}>
        <summary>${text.adjust}</summary>
        ${sliders(state)} ${filters(state)}
      </details>
    </section>
  `;
}

/** @param {State} state */
function sliders(state) {
  const usual = model()?.manifest.threshold;
  const isMoved = state.threshold !== null && usual !== undefined;
  return html`
    <div class="row fields">
      ${slider(text.threshold, threshold(), (value) => update({ threshold: value }))}
      ${
        isMoved
          ? html`<button class="button quiet" @click=${() => update({ threshold: null })}>
              ${text.resetThreshold(usual)}
            </button>`
          : nothing
      }
      ${slider(text.opacity, state.opacity, (value) => update({ opacity: value }))}
    </div>
  `;
}

/** @param {State} state */
function filters({ photos, filter }) {
  const found = photos.flatMap((photo) => answerOf(photo)?.predictions.map(({ label }) => label) ?? []);
  // Keep the chosen label in the list even if no photo has it any more.
  const labels = [...new Set(filter.label ? [filter.label, ...found] : found)].sort((a, b) =>
    a.localeCompare(b, text.language),
  );
  const change = (/** @type {Partial<Filter>} */ changes) => update({ filter: { ...current().filter, ...changes } });
  return html`
    <div class="row fields">
      ${select(text.sort, entries(text.orders), filter.order, (order) => change({ order }))}
      ${select(text.show, entries(text.kinds), filter.kind, (kind) => change({ kind }))}
      ${select(text.labelFilter, [["", text.anyLabel], ...named(labels)], filter.label, (label) => change({ label }))}
      ${slider(text.leastConfidence, filter.leastConfidence, (leastConfidence) => change({ leastConfidence }))}
    </div>
  `;
}

/** @param {State} state @param {Photo[]} shown */
function summary({ photos }, shown) {
  const uncertain = photos.filter((photo) => isUncertain(photo, threshold())).length;
  const failed = failedAmong(photos).length;
  const working = photos.filter(isUnderWay).length;
  const parts = [
    text.count(shown.length, photos.length),
    uncertain ? text.countUncertain(uncertain) : null,
    failed ? text.countFailed(failed) : null,
    working ? text.countWorking(working) : null,
  ];
  return html`<p class="summary">${parts.filter(Boolean).join(" · ")}</p>`;
}

/** @param {State} state @param {Photo[]} shown */
function actions({ photos }, shown) {
  const failed = failedAmong(photos).map(({ id }) => id);
  const compared = photos.filter(({ isCompared }) => isCompared).length;
  return html`
    <div class="row">
      ${compared > 1 ? html`<a class="button primary" href="#compare">${text.comparePhotos(compared)}</a>` : nothing}
      ${
        failed.length > 0
          ? html`<button class="button" @click=${() => retry(failed)}>${text.retryFailed(failed.length)}</button>`
          : nothing
      }
      <button class="button" @click=${() => saveText(toCsv(shown, threshold(), text.sentence), "text/csv", "csv")}>
        ${text.saveCsv}
      </button>
      <button
        class="button"
        @click=${() => saveText(toJson(shown, threshold(), text.sentence), "application/json", "json")}
      >
        ${text.saveJson}
      </button>
      <button class="button quiet" @click=${() => remove(photos.map(({ id }) => id))}>${text.removeAll}</button>
    </div>
  `;
}

/** @param {readonly Photo[]} photos */
function failedAmong(photos) {
  return photos.filter(({ progress }) => progress.stage === "failed");
}

/** @param {string} content @param {string} type @param {string} ending */
function saveText(content, type, ending) {
  save(new Blob([content], { type }), `litelens.${ending}`);
}
