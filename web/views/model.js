/** The view of the model: its description, metrics and mistakes. */

import { fetchText, problemOf } from "../api.js";
import { save } from "../saving.js";
import { settings } from "../settings.js";
import { threshold, update } from "../state.js";
import { text } from "../text.js";
import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { chart, counts, shares } from "./charts.js";
import { classes } from "./classes.js";
import { confusion } from "./confusion.js";

/** @import {State, Model, Problem} from "../state.js" */

/** @param {State} state */
export function modelView(state) {
  if (state.service.stage === "loading") return html`<p role="status">${text.loading}</p>`;
  if (state.service.stage === "failed") return nothing;
  const { model } = state.service;
  const { metrics } = model;
  return html`
    ${about(model, state.reportProblem)} ${figures(model)} ${metrics ? charts(metrics) : nothing}
    ${classes(model, state.classTable)}
    ${
      metrics?.confusion?.length
        ? confusion(
            model.manifest.labels,
            metrics.confusion,
            Math.min(state.confusedClass, metrics.confusion.length - 1),
          )
        : nothing
    }
  `;
}

/** @param {Model} model @param {Problem | null} problem the report's */
function about({ manifest, metrics, links }, problem) {
  const { width, height } = manifest.preprocessing;
  const created = metrics?.created;
  return html`
    <p class="lead">${verdict(manifest, metrics)}</p>
    ${
      created
        ? html`<p class="small">
            ${text.source(created)} ${isCrossValidated(metrics) ? text.sourceOfOthers : nothing}
          </p>`
        : nothing
    }
    ${warnings(manifest)}
    <p><strong>${manifest.name} ${manifest.version}</strong></p>
    <p>${manifest.description ?? ""} ${text.input(width, height)}</p>
    ${links.report ? reportLink(links.report, problem) : nothing}
  `;
}

/** @param {Model["manifest"]} manifest @param {Model["metrics"]} metrics */
function verdict({ metrics: { int8_top1, fp32_top1, exact_match, test_images } = {} }, metrics) {
  if (typeof exact_match === "number") return text.verdictOfLabels(exact_match, test_images);
  const share = int8_top1 ?? fp32_top1;
  if (share === undefined || share === null) return metrics ? text.withoutAccuracy : text.withoutMetrics;
  if (isCrossValidated(metrics)) return text.verdictOfOthers(share, test_images);
  return text.verdict(share, test_images, metrics?.dataset ?? "");
}

/** @param {Model["metrics"]} metrics of a learned model have a review @returns {boolean} */
function isCrossValidated(metrics) {
  return Boolean(metrics?.review) && !metrics?.distribution?.test?.length;
}

/** The warnings in the model's manifest. @param {Model["manifest"]} manifest */
function warnings({ warnings = [] }) {
  return warnings.map(
    (/** @type {string} */ warning) =>
      html`<div class="notice warned">
        <p><strong>${text.warned}</strong> ${warning}</p>
      </div>`,
  );
}

/** A plain link if there is no key. A link cannot send a key, so with a key the report is saved as a file. */
/** @param {string} path @param {Problem | null} problem */
function reportLink(path, problem) {
  const { endpoint, key } = settings();
  const link = key
    ? html`<button class="button" @click=${() => saveReport(path)}>${text.report}</button>`
    : html`<a class="button" href=${endpoint + path} target="_blank" rel="noopener">${text.report}</a>`;
  return html`<div class="row">
    ${link} ${problem ? html`<span class="bad" role="alert">${text.sentence(problem)}</span>` : nothing}
  </div>`;
}

/** @param {string} path */
async function saveReport(path) {
  update({ announcement: text.reportLoading, reportProblem: null });
  try {
    save(new Blob([await fetchText(path)], { type: "text/html" }), "report.html");
  } catch (error) {
    update({ reportProblem: problemOf(error) });
  }
}

/** @param {Record<string, any>} metrics */
function charts(metrics) {
  const all = [calibration(metrics), coverage(metrics), learning(metrics)];
  return all.every((one) => one === nothing) ? nothing : html`<div class="panels">${all}</div>`;
}

/** @param {Model} model */
function figures({ manifest }) {
  const { metrics = {}, files, labels } = manifest;
  const bytes = files?.["model.tflite"]?.bytes;
  /** @type {[string[], string | undefined][]} */
  const all = [
    [text.figures.top1, shareOf(metrics.int8_top1 ?? metrics.fp32_top1)],
    [text.figures.top5, shareOf(metrics.int8_top5 ?? metrics.fp32_top5)],
    [text.figures.precision, shareOf(metrics.mean_average_precision)],
    [text.figures.f1, shareOf(metrics.mean_f1)],
    [text.figures.error, shareOf(metrics.calibration_error)],
    [text.figures.agreement, shareOf(metrics.agreement)],
    [text.figures.size, bytes === undefined ? undefined : text.megabytes(bytes)],
    [text.figures.classes, text.number(labels.length)],
    [text.figures.images, metrics.test_images === undefined ? undefined : text.number(metrics.test_images)],
  ];
  return html`
    <dl class="figures">
      ${all
        .filter(([, value]) => value !== undefined)
        .map(
          ([[name, meaning], value]) =>
            html`<div>
              <dt>${name}<span class="meaning">${meaning}</span></dt>
              <dd>${value}</dd>
            </div>`,
        )}
    </dl>
  `;
}

/** Return a share as a percentage, or undefined if it was not measured. @param {number | null | undefined} share */
function shareOf(share) {
  return share === undefined || share === null ? undefined : text.percent(share);
}

/** @typedef {{images: number, confidence: number, accuracy: number}} Bin */

/** @param {Record<string, any>} metrics */
function calibration(metrics) {
  if (!metrics.reliability?.length) return nothing;
  const series = [
    { name: text.calibrated, points: dots(metrics.reliability), hasDots: true },
    { name: text.uncalibrated, points: dots(metrics.reliability_uncalibrated ?? []) },
  ].filter(({ points }) => points.length > 0);
  const axes = /** @type {const} */ ([shares(text.confidenceAxis), shares(text.accuracyAxis)]);
  return panel(
    text.calibration,
    chart(text.calibrationTitle, ...axes, series, { diagonal: true }),
    text.calibrationLegend,
  );
}

/** @param {Bin[]} bins */
function dots(bins) {
  const most = Math.max(...bins.map(({ images }) => images));
  return bins.map(({ images, confidence, accuracy }) => ({
    x: confidence,
    y: accuracy,
    // The dot's area is proportional to the number of images.
    size: 2 + 6 * Math.sqrt(images / most),
    title: text.calibrationPoint(confidence, accuracy, images),
  }));
}

/** @typedef {{coverage: number, accuracy: number, threshold: number}} Covered */

/** @param {Record<string, any>} metrics */
function coverage(metrics) {
  /** @type {Covered[]} from the highest threshold to the lowest */
  const points = metrics.coverage ?? [];
  if (points.length === 0) return nothing;
  const least = threshold() ?? 0;
  const here = points.findLast((point) => point.threshold >= least);
  const series = [
    { name: text.coverage, points: points.map(({ coverage, accuracy }) => ({ x: coverage, y: accuracy })) },
  ];
  return panel(
    text.coverage,
    chart(text.coverageTitle, shares(text.coverageAxis), shares(text.accuracyAxis), series, { marker: here?.coverage }),
    here ? text.coverageLegend(least, here.coverage, here.accuracy) : "",
  );
}

/** @typedef {{accuracy?: number, val_accuracy?: number}} Epoch */

/** @param {Record<string, any>} metrics */
function learning(metrics) {
  /** @type {Epoch[]} */
  const epochs = metrics.history ?? [];
  if (epochs.length < 2) return nothing;
  const line = (/** @type {keyof Epoch} */ field) =>
    epochs.flatMap((epoch, index) => (epoch[field] === undefined ? [] : [{ x: index + 1, y: epoch[field] }]));
  const series = [
    { name: text.validated, points: line("val_accuracy") },
    { name: text.trained, points: line("accuracy") },
  ].filter(({ points }) => points.length > 0);
  const across = counts(text.epochAxis, epochs.length);
  return panel(text.learning, chart(text.learningTitle, across, shares(text.accuracyAxis), series), "");
}

/** @param {string} title @param {unknown} content @param {string} legend */
function panel(title, content, legend) {
  return html`<section class="panel">
    <h2>${title}</h2>
    ${content} ${legend ? html`<p class="small">${legend}</p>` : nothing}
  </section>`;
}
