/** Learning: what is still needed, how far it is, how good the result is, and photos to check. */

import { GOOD_PHOTOS, LEAST_PHOTOS, learn, movePhoto, photoUrl, removePhoto } from "../teaching.js";
import { change, classByName, photoCount, state } from "../teaching_state.js";
import { text } from "../text.js";
import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { repeat } from "../vendor/lit-html/directives/repeat.js";

/** @import {Learned, Misplaced, Pair} from "../teaching_state.js" */

/** The number of photos to check that are shown of each kind. */
const SHOWN = 5;

/** Accuracy above chance below which a model is not useful. */
const LEAST_GAIN = 0.2;

export function learnPanel() {
  const { learned, isLearning, isOutdated, problems } = state();
  const lacking = needs();
  const isOffered = !learned || isOutdated;
  return html`
    <section class="teach-panel" aria-labelledby="teach-learn">
      <h2 id="teach-learn">${text.teach.stepLearn}</h2>
      ${
        isLearning
          ? waiting()
          : html`
              ${lacking.length > 0 && isOffered ? missing(lacking) : nothing}
              ${learned && isOutdated && lacking.length === 0 ? html`<p>${text.teach.outdated}</p>` : nothing}
              ${
                isOffered
                  ? html`<button class="button primary teach-learn" ?disabled=${lacking.length > 0} @click=${learn}>
                      ${learned ? text.teach.learnAgain : text.teach.learn}
                    </button>`
                  : nothing
              }
              ${problems.learn ? html`<p class="bad" role="alert">${text.sentence(problems.learn)}</p>` : nothing}
              ${learned ? accuracy(learned) : nothing}
            `
      }
    </section>
  `;
}

/** What is needed before something can be learned. @returns {string[]} */
function needs() {
  const { classes } = state();
  const found = classes
    .slice(0, Math.max(2, classes.length))
    .map(({ name, photos, isSaved }, index) => ({
      lacking: LEAST_PHOTOS - photos.length,
      title: name || text.teach.className(index + 1),
      counts: isSaved || index < 2,
    }))
    .filter(({ lacking, counts }) => lacking > 0 && counts)
    .map(({ lacking, title }) => text.teach.needPhotos(lacking, title));
  return classes.length < 2 ? [text.teach.needClass, ...found] : found;
}

/** @param {string[]} lacking */
function missing(lacking) {
  if (photoCount() === 0) {
    return html`<ol class="teach-steps">
      ${text.teach.steps.map((step) => html`<li>${step}</li>`)}
    </ol>`;
  }
  return html`
    <p>${text.teach.stillNeeded}</p>
    <ul class="teach-needs">
      ${lacking.map((need) => html`<li>${need}</li>`)}
    </ul>
  `;
}

function waiting() {
  const { seconds, progress } = state();
  // Nobody knows how long the rest takes once all photos were read.
  const isReading = progress && progress.done < progress.total;
  return html`
    <p role="status">${text.teach.learning(photoCount())}</p>
    <progress
      aria-label=${text.teach.stepLearn}
      value=${isReading ? progress.done / progress.total : nothing}
    ></progress>
    <p class="small">
      ${text.teach.seconds(seconds)}${isReading ? text.teach.read(progress.done, progress.total) : nothing}
    </p>
  `;
}

/** @param {Learned} learned */
function accuracy({ metrics, classes, confusion, recipe }) {
  const labels = classes.map(({ label }) => label);
  const fewest = Math.min(...recipe.distinct_photos);
  const scarce = labels[recipe.distinct_photos.indexOf(fewest)];
  const isGuessing = metrics.int8_top1 - 1 / labels.length < LEAST_GAIN;
  return html`
    <div id="teach-result" class="teach-accuracy" tabindex="-1">
      <p class="teach-big">${text.teach.right(metrics.int8_top1, metrics.test_images)}</p>
      <p>${text.teach.unseen}</p>
      ${isGuessing ? html`<p class="teach-caution">${text.teach.guessing}</p>` : nothing}
      ${fewest < GOOD_PHOTOS ? html`<p class="teach-caution">${text.teach.few(scarce, fewest)}</p>` : nothing}
      ${confusions(labels, confusion)}
    </div>
  `;
}

/** The classes that are taken for each other most often. @param {string[]} labels @param {number[][]} matrix */
function confusions(labels, matrix) {
  const found = matrix
    .flatMap((row, truth) => row.map((count, said) => ({ count, truth: labels[truth], said: labels[said] })))
    .filter(({ count, truth, said }) => count > 0 && truth !== said)
    .sort((a, b) => b.count - a.count)
    .slice(0, 3);
  return found.length === 0
    ? nothing
    : html`<ul class="small">
        ${found.map(({ count, truth, said }) => html`<li>${text.teach.confused(count, truth, said)}</li>`)}
      </ul>`;
}

/** Photos that look misplaced, and duplicates. @param {Learned} learned */
export function checks({ review }) {
  const misplaced = review.misplaced_listed.filter(({ file }) => has(file) && !state().accepted.includes(file));
  const pairs = review.duplicates.filter(({ first, second }) => has(first) && has(second));
  const [same, similar] = [pairs.filter(({ exact }) => exact), pairs.filter(({ exact }) => !exact)];
  if (misplaced.length + pairs.length === 0) return nothing;
  return html`
    <section class="teach-panel" tabindex="-1" aria-labelledby="teach-check">
      <h2 id="teach-check">${text.teach.stepCheck}</h2>
      ${misplaced.length > 0 ? misplacedList(misplaced) : nothing} ${same.length > 0 ? sameList(same) : nothing}
      ${similar.length > 0 ? html`<p class="small">${text.teach.similar(similar.length)}</p>` : nothing}
    </section>
  `;
}

/** @param {Misplaced[]} misplaced */
function misplacedList(misplaced) {
  return html`
    <p>${text.teach.misplaced(misplaced.length)}</p>
    <ul class="teach-checks">
      ${repeat(
        misplaced.slice(0, SHOWN),
        ({ file }) => file,
        ({ file, label, looks_like: other }) => html`
          <li>
            <img src=${urlOf(file)} alt="" width="96" height="96" />
            <p>${text.teach.looksLike(label, other)}</p>
            <div class="row">
              <button class="button" @click=${() => movePhoto(label, idOf(file), other)}>
                ${text.teach.moveTo(other)}
              </button>
              <button class="button" @click=${() => removePhoto(label, idOf(file))}>${text.remove}</button>
              <button class="button quiet" @click=${() => change({ accepted: [...state().accepted, file] })}>
                ${text.teach.isRight}
              </button>
            </div>
          </li>
        `,
      )}
    </ul>
  `;
}

/** @param {Pair[]} pairs */
function sameList(pairs) {
  const copies = [...new Set(pairs.map(({ second }) => second))];
  return html`
    <p>${text.teach.copies(copies.length)}</p>
    <ul class="teach-checks">
      ${repeat(
        pairs.slice(0, SHOWN),
        ({ first, second }) => `${first} ${second}`,
        ({ first, second }) => html`
          <li class="teach-pair">
            ${[first, second].map(
              (file) => html`
                <figure>
                  <img src=${urlOf(file)} alt="" width="96" height="96" />
                  <figcaption class="small">${classOf(file)}</figcaption>
                </figure>
              `,
            )}
            <button class="button" @click=${() => removePhoto(classOf(second), idOf(second))}>
              ${classOf(first) === classOf(second) ? text.teach.removeOne : text.teach.removeCopy(classOf(second))}
            </button>
          </li>
        `,
      )}
    </ul>
    ${
      copies.length > 1
        ? html`<button class="button" @click=${() => copies.forEach((file) => removePhoto(classOf(file), idOf(file)))}>
            ${text.teach.removeCopies(copies.length)}
          </button>`
        : nothing
    }
  `;
}

/** Whether a photo of the list is still in its class. @param {string} file */
function has(file) {
  return classByName(classOf(file))?.photos.includes(idOf(file)) ?? false;
}

/** Return the class of a photo in metrics.json, such as cup/ID.jpg. @param {string} file */
function classOf(file) {
  return file.slice(0, file.lastIndexOf("/"));
}

/** @param {string} file */
function idOf(file) {
  return file.slice(file.lastIndexOf("/") + 1).replace(/\.[^.]*$/, "");
}

/** @param {string} file */
function urlOf(file) {
  return photoUrl(classOf(file), idOf(file));
}
