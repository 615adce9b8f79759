/** What concerns all photos: the summary, sorting and filters above them, and the bar below them. */

import { forgetRemoved, remove, undoRemoval } from "../classifying.js";
import { withinLimits } from "../keeping.js";
import { answerOf, isUncertain, isUnderWay, labelsOf, toCsv, toJson } from "../results.js";
import { save } from "../saving.js";
import { EVERYTHING, current, leastSure, model, threshold, update } from "../state.js";
import { text } from "../text.js";
import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { entries, named, select, slider } from "./fields.js";

/** @import {State, Photo, Filter} from "../state.js" */

/** The number of photos from which sorting and filters are of use. */
const MANY = 5;

export function resetFilter() {
  update({ filter: { ...EVERYTHING, order: current().filter.order } });
}

/** @param {State} state @param {Photo[]} shown the photos that match the filter @param {unknown} modelChoice */
export function overview(state, shown, modelChoice) {
  const answers = shown.filter(answerOf).length;
  const isAdjusting = state.isAdjusting && state.photos.length >= MANY;
  return html`
    <div class="row apart overview">
      ${summary(state, shown)} ${answers > 1 ? html`<p class="small hint">${text.hint}</p>` : nothing}
      <div class="row">
        ${
          state.photos.length >= MANY
            ? html`<button
                class="button"
                aria-expanded=${isAdjusting}
                @click=${() => update({ isAdjusting: !isAdjusting })}
              >
                ${text.adjust}
              </button>`
            : nothing
        }
        ${modelChoice}
      </div>
    </div>
    ${isAdjusting ? html`<section class="panel controls" aria-label=${text.adjust}>${filters(state)}</section>` : nothing}
  `;
}

/** @param {State} state */
function filters({ photos, filter, threshold: moved }) {
  const found = photos.flatMap((photo) => {
    const answer = answerOf(photo);
    return answer === null ? [] : labelsOf(answer).map(({ label }) => label);
  });
  // Keep the chosen label in the list even if no photo has it any more.
  const labels = [...new Set(filter.label ? [filter.label, ...found] : found)].sort((a, b) =>
    a.localeCompare(b, text.language),
  );
  const change = (/** @type {Partial<Filter>} */ changes) => update({ filter: { ...current().filter, ...changes } });
  const usual = model()?.manifest.threshold;
  const least = threshold();
  return html`
    <div class="row fields">
      ${select(text.sort, entries(text.orders), filter.order, (order) => change({ order }))}
      ${select(text.show, entries(text.kinds), filter.kind, (kind) => change({ kind }))}
      ${select(text.labelFilter, [["", text.anyLabel], ...named(labels)], filter.label, (label) => change({ label }))}
      ${slider(text.leastConfidence, filter.leastConfidence, (leastConfidence) => change({ leastConfidence }))}
      ${least === null ? nothing : slider(text.threshold, least, (value) => update({ threshold: value }))}
      ${
        moved !== null && usual !== undefined
          ? html`<button class="button quiet" @click=${() => update({ threshold: null })}>
              ${text.resetThreshold(usual)}
            </button>`
          : nothing
      }
    </div>
  `;
}

/** @param {State} state @param {Photo[]} shown */
function summary({ photos, isKeeping }, shown) {
  const uncertain = photos.filter((photo) => isUncertain(photo, leastSure())).length;
  const failed = photos.filter(({ progress }) => progress.stage === "failed").length;
  const working = photos.filter(isUnderWay).length;
  const kept = isKeeping ? withinLimits(photos).length : photos.length;
  const parts = [
    text.count(shown.length, photos.length),
    uncertain ? text.countUncertain(uncertain) : null,
    failed ? text.countFailed(failed) : null,
    working ? text.countWorking(working) : null,
  ];
  return html`<p class="summary">${parts.filter(Boolean).join(" · ")}</p>
    ${photos.length > kept ? html`<p class="small">${text.notKept(photos.length - kept)}</p>` : nothing}`;
}

/** The bar that is always in sight. @param {State} state @param {Photo[]} shown @param {unknown} chooser */
export function actionBar({ photos }, shown, chooser) {
  const compared = photos.filter(({ isCompared }) => isCompared).length;
  return html`
    <section class="dock" tabindex="-1" aria-label=${text.controls}>
      ${chooser} ${compared > 1 ? html`<a class="button" href="#compare">${text.comparePhotos(compared)}</a>` : nothing}
      <button class="button" popovertarget="saves">${text.save}</button>
      <div class="menu" id="saves" popover>
        ${shown.length === photos.length ? nothing : saves(shown, true)} ${saves(photos, false)}
      </div>
      <button class="button" @click=${() => remove(photos.map(({ id }) => id))}>${text.removeAll}</button>
    </section>
  `;
}

/** @param {readonly Photo[]} photos @param {boolean} isPart whether the others are filtered out */
function saves(photos, isPart) {
  const csv = () => toCsv(photos, leastSure(), text.sentence);
  const json = () => toJson(photos, leastSure(), text.sentence);
  const button = (
    /** @type {string} */ name,
    /** @type {() => string} */ content,
    /** @type {string} */ ending,
  ) => html`
    <button
      class="button"
      popovertarget="saves"
      popovertargetaction="hide"
      @click=${() => save(new Blob([content()]), `litelens.${ending}`)}
    >
      ${name}
    </button>
  `;
  return html`${button(text.saveCsv(photos.length, isPart), csv, "csv")}
  ${button(text.saveJson(photos.length, isPart), json, "json")}`;
}

/** The offer to bring removed photos back. @param {State} state */
export function undo({ removed }) {
  if (removed.length === 0) return nothing;
  return html`
    <div class="toast">
      <span>${text.removed(removed.length)}</span>
      <button class="button quiet" @click=${undoRemoval}>${text.undo}</button>
      <button class="button round" aria-label=${text.close} @click=${forgetRemoved}>
        <span aria-hidden="true">✕</span>
      </button>
    </div>
  `;
}
