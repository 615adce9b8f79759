/** The card of a photo: its picture, progress and labels. */

import { problemOf } from "../api.js";
import { cancel, fetchHeatMap, remove, retry, showHeatMap } from "../classifying.js";
import { answerOf, isUncertain } from "../results.js";
import { save, withHeatMap } from "../saving.js";
import { current, model, photoById, threshold, update, updatePhoto } from "../state.js";
import { text } from "../text.js";
import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { picture, shownHeatMap } from "./picture.js";

/** @import {Photo, Prediction, Answer, State} from "../state.js" */

/** @param {Photo} photo @param {State} state */
export function card(photo, state) {
  const answer = answerOf(photo);
  return html`
    <li class="card" data-stage=${photo.progress.stage}>
      <article tabindex="-1" aria-label=${photo.name}>
        ${picture(photo, photo.shownLabel, state.opacity)}
        <div class="told">
          <div class="headline">
            <h2 class="name" title=${photo.name}>${photo.name}</h2>
            <button
              class="button quiet"
              title=${text.remove}
              aria-label=${text.named(text.remove, photo.name)}
              @click=${() => remove([photo.id])}
            >
              <span aria-hidden="true">✕</span>
            </button>
          </div>
          ${answer ? found(photo, answer) : progress(photo)}
        </div>
        ${answer ? html`<div class="row actions">${doneActions(photo, answer)}</div>` : nothing}
      </article>
    </li>
  `;
}

/** @param {Photo} photo @param {Answer} answer */
function found(photo, answer) {
  const below = isUncertain(photo, threshold());
  return html`
    <p class="verdict ${below ? "uncertain" : "certain"}">
      ${answer.unfamiliar ? text.unfamiliar : below ? text.uncertain(threshold()) : text.certain}
    </p>
    <div class="labels" role="group" aria-label=${text.labels}>
      ${answer.predictions.map((prediction) => bar(photo, prediction))}
    </div>
    ${photo.shownLabel === null ? nothing : heatMapState(photo, photo.shownLabel)}
    ${photo.saveProblem ? html`<p class="small bad" role="alert">${text.sentence(photo.saveProblem)}</p>` : nothing}
    <p class="small row apart">
      ${answer.group ? html`<span title=${text.groupTitle}>${text.group(answer.group.label, answer.group.confidence)}</span>` : nothing}
      <span title=${text.timingTitle}>${text.timing(answer.timing_ms.total)}</span>
    </p>
  `;
}

/** @param {Photo} photo @param {Prediction} prediction */
function bar(photo, { label, confidence }) {
  const isShown = photo.shownLabel === label;
  return html`
    <button
      class="bar"
      title=${text.heatMapOf(label)}
      aria-pressed=${isShown}
      @click=${() => showHeatMap(photo.id, isShown ? null : label)}
    >
      <span class="label">${text.label(label)}</span>
      <span class="track"><span class="fill" .style=${`inline-size: ${confidence * 100}%`}></span></span>
      <span class="figure">${text.percent(confidence)}</span>
    </button>
  `;
}

/** @param {Photo} photo @param {string} label */
export function heatMapState({ heatMaps }, label) {
  const state = Object.hasOwn(heatMaps, label) ? heatMaps[label] : null;
  if (state?.stage === "failed") return html`<p class="small bad" role="alert">${text.sentence(state.problem)}</p>`;
  return html`<p class="small">${state?.stage === "done" ? text.heatMapShown(label) : text.heatMapLoading(label)}</p>`;
}

/** @param {Photo} photo */
function progress(photo) {
  const { progress, name, id } = photo;
  const again = html`<button class="button" @click=${() => retry([id])}>
    ${text.tryAgain}<span class="unseen">: ${name}</span>
  </button>`;
  if (progress.stage === "failed") {
    return html`<p class="verdict bad">${text.sentence(progress.problem)}</p>
      <div class="row">
        ${again}
        ${
          progress.problem.code === "forbidden"
            ? html`<a class="button" href="#settings">${text.openSettings}</a>`
            : nothing
        }
      </div>`;
  }
  if (progress.stage === "cancelled")
    return html`<p class="verdict">${text.cancelled}</p>
      ${again}`;
  return html`
    <p class="verdict">${stageText(progress)}</p>
    <progress
      aria-label=${text.named(stageText(progress), name)}
      max="1"
      value=${shareOf(progress) ?? nothing}
    ></progress>
    <button class="button" @click=${() => cancel(id)}>${text.cancel}<span class="unseen">: ${name}</span></button>
  `;
}

/** @param {import("../state.js").Progress} progress */
function stageText(progress) {
  switch (progress.stage) {
    case "sending":
      return text.sending(progress.share);
    case "throttled":
      return text.throttled(progress.seconds);
    case "waiting":
    case "preparing":
    case "classifying":
    case "following":
      return text[progress.stage];
    default:
      return "";
  }
}

/** @param {import("../state.js").Progress} progress */
function shareOf(progress) {
  if (progress.stage === "waiting") return 0;
  return progress.stage === "sending" ? progress.share : null;
}

/** @param {Photo} photo @param {Answer} answer */
function doneActions(photo, answer) {
  const { id, name, isCompared } = photo;
  return html`
    <label class="check">
      <input
        type="checkbox"
        aria-label=${text.named(text.compare, name)}
        .checked=${isCompared}
        @change=${() => compare(photo)}
      />${text.compare}
    </label>
    ${
      model()?.links.describe
        ? html`<a class="button quiet" href="#ask" @click=${() => update({ askedPhoto: id })}>
            ${text.ask}<span class="unseen">: ${name}</span>
          </a>`
        : nothing
    }
    <button class="button quiet" title=${text.savePngTitle} @click=${() => savePng(photo, answer)}>
      ${text.savePng}<span class="unseen">: ${name}</span>
    </button>
  `;
}

/** @param {Photo} photo */
function compare({ id, isCompared }) {
  updatePhoto(id, { isCompared: !isCompared });
  const label = current().comparedLabel;
  if (!isCompared && label !== null) void fetchHeatMap(id, label);
}

/** Save the photo with the shown heat map, or the best label's. @param {Photo} photo @param {Answer} answer */
async function savePng({ id, name, url, shownLabel }, answer) {
  const label = shownLabel ?? answer.predictions[0].label;
  updatePhoto(id, { saveProblem: null });
  await showHeatMap(id, label);
  const shown = photoById(id);
  if (!shown) return;
  const heatMap = shownHeatMap(shown, label);
  try {
    const content = await withHeatMap(url, heatMap, answer.image, current().opacity);
    save(content, `${[name.replace(/\.[^.]*$/, ""), ...(heatMap ? [label] : [])].join(" ")}.png`);
  } catch (error) {
    updatePhoto(id, { saveProblem: problemOf(error) });
  }
}
