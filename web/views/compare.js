/** The view for comparing photos: their confidences for the same labels, and heat maps of one label. */

import { fetchHeatMap } from "../classifying.js";
import { answerOf } from "../results.js";
import { update } from "../state.js";
import { text } from "../text.js";
import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { repeat } from "../vendor/lit-html/directives/repeat.js";
import { heatMapState, heatScale } from "./card.js";
import { named, select } from "./fields.js";
import { picture } from "./picture.js";

/** @import {State, Photo, Answer} from "../state.js" */

/** @param {State} state */
export function compareView(state) {
  const photos = state.photos.filter((photo) => photo.isCompared && answerOf(photo));
  const back = html`<a class="button" href="#classify">${text.back}</a>`;
  if (photos.length < 2)
    return html`<p>${text.nothingToCompare}</p>
      ${back}`;
  const labels = labelsOf(photos);
  const shown = state.comparedLabel !== null && labels.includes(state.comparedLabel) ? state.comparedLabel : "";
  return html`
    <div class="row fields">
      ${back}
      ${select(text.compareWith, [["", text.noHeatMap], ...named(labels)], shown, (label) => showAll(photos, label || null))}
      ${shown ? heatScale() : nothing}
    </div>
    <div class="scroller" tabindex="0" role="region" aria-label=${text.titles.compare}>
      <table class="compared" role="table" .style=${`--photos: ${photos.length}`}>
        <thead role="rowgroup">
          <tr role="row">
            <td role="cell"></td>
            ${repeat(
              photos,
              ({ id }) => id,
              (photo) =>
                html`<th scope="col" role="columnheader">
                  ${picture(photo, shown || null, state.opacity)}<span>${photo.name}</span>
                  ${shown ? heatMapState(photo, shown) : nothing}
                </th>`,
            )}
          </tr>
        </thead>
        <tbody role="rowgroup">
          ${labels.map(
            (label) => html`
              <tr role="row">
                <th scope="row" role="rowheader">${text.label(label)}</th>
                ${photos.map((photo) => cell(/** @type {Answer} */ (answerOf(photo)), label))}
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
  `;
}

/** Return the labels of all photos, by highest confidence. @param {Photo[]} photos */
function labelsOf(photos) {
  /** @type {Map<string, number>} */
  const best = new Map();
  for (const { label, confidence } of photos.flatMap((photo) => answerOf(photo)?.predictions ?? [])) {
    best.set(label, Math.max(confidence, best.get(label) ?? 0));
  }
  return [...best.keys()].sort((a, b) => (best.get(b) ?? 0) - (best.get(a) ?? 0));
}

/** @param {Answer} answer @param {string} label */
function cell({ predictions }, label) {
  const found = predictions.find((prediction) => prediction.label === label);
  if (!found)
    return html`<td class="small" role="cell">${text.below(predictions[predictions.length - 1].confidence)}</td>`;
  return html`
    <td role="cell">
      <span class="track"><span class="fill" .style=${`inline-size: ${found.confidence * 100}%`}></span></span>
      <span class="figure">${text.percent(found.confidence)}</span>
    </td>
  `;
}

/** @param {Photo[]} photos @param {string | null} label */
function showAll(photos, label) {
  update({ comparedLabel: label });
  if (label !== null) for (const { id } of photos) void fetchHeatMap(id, label);
}
