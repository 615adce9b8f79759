/** A photo with its answer: the label first, then the other labels, then what can be done with it. */

import { problemOf } from "../api.js";
import { cancel, fetchHeatMap, remove, showHeatMap } from "../classifying.js";
import { answerOf, hasSeveral, inWords, isUncertain, labelsOf, shownLabels } from "../results.js";
import { save, withCaption } from "../saving.js";
import { current, leastSure, model, photoById, update, updatePhoto } from "../state.js";
import { text } from "../text.js";
import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { slider } from "./fields.js";
import { picture, shownHeatMap } from "./picture.js";

/** @import {Photo, Prediction, Answer, State} from "../state.js" */

/**
 * @param {Photo} photo
 * @param {State} state
 * @param {boolean} isLarge whether the photo has the whole width
 * @param {() => void} [enlarge] called when the photo is pressed
 */
export function card(photo, state, isLarge, enlarge) {
  const answer = answerOf(photo);
  return html`
    <article
      class=${isLarge ? "large" : ""}
      tabindex="-1"
      aria-label=${photo.name}
      @keydown=${(/** @type {KeyboardEvent} */ event) => chooseByKey(event, photo.id)}
    >
      ${picture(photo, photo.shownLabel, state.opacity, {
        enlarge,
        legend: legend(photo, isLarge ? state.opacity : null),
      })}
      <div class="told">
        ${answer ? found(photo, answer) : progress(photo)}
        ${isLarge && answer ? html`<p class="small">${text.hint}</p>` : nothing}
        <p class="name small" title=${photo.name}>${photo.name}</p>
        ${answer ? html`${doneActions(photo, answer, isLarge)} ${facts(answer)}` : nothing}
      </div>
      ${isLarge && answer ? nothing : removeButton(photo)}
    </article>
  `;
}

/** @param {Photo} photo failed or with a small card */
export function removeButton({ id, name }) {
  return html`
    <button
      class="button round remove"
      title=${text.removeTitle}
      aria-label=${text.named(text.remove, name)}
      @click=${() => remove([id])}
    >
      <span aria-hidden="true">✕</span>
    </button>
  `;
}

/** Show the heat map of a label by its number. @param {KeyboardEvent} event @param {number} id the photo's */
export function chooseByKey({ key, ctrlKey, altKey, metaKey }, id) {
  const photo = photoById(id);
  const answer = photo && answerOf(photo);
  const prediction = answer && shownLabels(answer)[Number(key) - 1];
  if (prediction && !ctrlKey && !altKey && !metaKey) toggle(photo, prediction.label);
}

/** @param {Photo} photo @param {string} label */
function toggle({ id, shownLabel }, label) {
  void showHeatMap(id, shownLabel === label ? null : label);
}

/** @param {Photo} photo @param {number | null} opacity if it can be changed here */
function legend(photo, opacity) {
  if (photo.shownLabel === null) return nothing;
  const isShown = shownHeatMap(photo, photo.shownLabel) !== null;
  return html`<div class="heat-key">
    ${heatMapState(photo, photo.shownLabel)} ${isShown ? heatScale() : nothing}
    ${opacity !== null && isShown ? slider(text.opacity, opacity, (value) => update({ opacity: value })) : nothing}
  </div>`;
}

/** @param {Photo} photo @param {Answer} answer */
function found(photo, answer) {
  const [best, ...others] = shownLabels(answer);
  if (hasSeveral(answer.predictions) && !answer.unfamiliar) return severalLabels(photo, answer);
  return html`
    <div class="labels" role="group" aria-label=${text.labels}>
      ${
        answer.unfamiliar
          ? html`<h2 class="headline">${text.sureness.unfamiliar}</h2>
              <p class="small">${text.closest}</p>
              ${bar(photo, best)}`
          : html`<h2 class="headline">
              ${bar(photo, best, text.headline(best.label, !isUncertain(photo, leastSure())))}
            </h2>`
      }
      ${others.map((prediction) => bar(photo, prediction))}
    </div>
  `;
}

/** The labels that are present on a photo, then the best of the others. @param {Photo} photo @param {Answer} answer */
function severalLabels(photo, answer) {
  const present = labelsOf(answer);
  return html`
    <div class="labels" role="group" aria-label=${text.labels}>
      ${
        present.length === 0
          ? html`<h2 class="headline">${text.sureness.none}</h2>`
          : html`<h2 class="headline">${present.map((prediction) => bar(photo, prediction))}</h2>`
      }
      ${shownLabels(answer)
        .slice(present.length)
        .map((prediction) => bar(photo, prediction))}
    </div>
  `;
}

/**
 * @param {Photo} photo
 * @param {Prediction} prediction
 * @param {{before: string, label: string, after: string}} [words] of the headline
 */
function bar(photo, { label, confidence }, words = { before: "", label: text.label(label), after: "" }) {
  return html`
    <button
      class="bar ${words.before ? "unsure" : ""}"
      title=${text.heatMapOf(label)}
      aria-pressed=${photo.shownLabel === label}
      @click=${() => toggle(photo, label)}
    >
      <span class="track"><span class="fill" .style=${`inline-size: ${confidence * 100}%`}></span></span>
      <span class="label"
        ><span class="sureness">${words.before}</span><wbr />${words.label}<span class="sureness"
          >${words.after}</span
        ></span
      >
      <span class="figure">${text.percent(confidence)}</span>
    </button>
  `;
}

/** The meaning of a heat map's colours. */
export function heatScale() {
  return html`<p class="ramp small">${text.little} <i></i> ${text.much}</p>`;
}

/** @param {Photo} photo @param {string} label */
export function heatMapState({ heatMaps }, label) {
  const state = Object.hasOwn(heatMaps, label) ? heatMaps[label] : null;
  switch (state?.stage) {
    case "failed":
      return html`<p class="small bad" role="alert">${text.sentence(state.problem)}</p>`;
    case "coarse":
      return html`<p class="small">${text.coarse}</p>`;
    case "done":
      return html`<p class="small">${text.heatMapShown(label)}</p>`;
    default:
      return html`<p class="small">${text.heatMapLoading(label)}</p>`;
  }
}

/** @param {Photo} photo */
function progress({ progress, name, id }) {
  return html`
    <h2 class="stage">${stageText(progress)}</h2>
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

/** @param {Answer} answer */
function facts({ group, image, model, timing_ms: { total } }) {
  const all = [
    [text.facts.group, group && text.group(group.label, group.confidence)],
    [text.facts.image, text.image(image.format, image.width, image.height)],
    [text.facts.model, `${model.name} ${model.version}`],
    [text.facts.time, text.timing(total)],
  ];
  return html`<details>
    <summary>${text.details}</summary>
    <dl class="facts">
      ${all
        .filter(([, value]) => value)
        .map(
          ([name, value]) =>
            html`<dt>${name}</dt>
              <dd>${value}</dd>`,
        )}
    </dl>
  </details>`;
}

/** @param {Photo} photo @param {Answer} answer @param {boolean} isLarge */
function doneActions(photo, answer, isLarge) {
  const { id, name, isCompared } = photo;
  const ofThis = html`<span class="unseen">: ${name}</span>`;
  return html`
    <div class="row actions">
      <label class="check">
        <input
          type="checkbox"
          aria-label=${text.named(text.compare, name)}
          .checked=${isCompared}
          @change=${() => compare(photo)}
        />${text.compare}
      </label>
      <button class="button quiet" title=${text.savePngTitle} @click=${() => savePng(photo, answer)}>
        ${text.savePng}${ofThis}
      </button>
      <button class="button quiet" title=${text.codeTitle} @click=${() => update({ codePhoto: id })}>
        ${text.code}${ofThis}
      </button>
      ${
        model()?.links.describe
          ? html`<a class="button quiet" href="#ask" @click=${() => update({ askedPhoto: id, openedPhoto: null })}>
              ${text.ask}${ofThis}
            </a>`
          : nothing
      }
      ${
        isLarge
          ? html`<button class="button quiet" aria-label=${text.named(text.remove, name)} @click=${() => remove([id])}>
              ${text.remove}
            </button>`
          : nothing
      }
    </div>
    ${photo.saveProblem ? html`<p class="small bad" role="alert">${text.sentence(photo.saveProblem)}</p>` : nothing}
  `;
}

/** @param {Photo} photo */
function compare({ id, isCompared }) {
  updatePhoto(id, { isCompared: !isCompared });
  const label = current().comparedLabel;
  if (!isCompared && label !== null) void fetchHeatMap(id, label);
}

/** Save the photo with its label, and with the heat map if one is shown. @param {Photo} photo @param {Answer} answer */
async function savePng(photo, answer) {
  const { id, name, url, shownLabel } = photo;
  const { predictions, image } = answer;
  updatePhoto(id, { saveProblem: null });
  if (shownLabel !== null) await fetchHeatMap(id, shownLabel);
  const shown = photoById(id);
  if (!shown) return;
  const heatMap = shownLabel === null ? null : shownHeatMap(shown, shownLabel);
  const said = inWords(answer, !isUncertain(photo, leastSure()));
  const caption = heatMap ? `${said} · ${text.heatMapShown(heatMap.label)}` : said;
  try {
    const content = await withCaption(url, caption, heatMap, image, current().opacity);
    save(content, `${name.replace(/\.[^.]*$/, "")} ${heatMap?.label ?? predictions[0].label}.png`);
  } catch (error) {
    updatePhoto(id, { saveProblem: problemOf(error) });
  }
}
