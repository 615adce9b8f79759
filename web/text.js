/** All text of the page, in English. To translate the page, translate this file; `language` sets the number format. */

/** @import {Problem, Prediction} from "./state.js" */

const language = "en";

const percentFormat = new Intl.NumberFormat(language, {
  style: "percent",
  minimumFractionDigits: 1,
  maximumFractionDigits: 1,
});
const wholePercentFormat = new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 0 });
const numberFormat = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });

/** @param {number} share */
const percent = (share) => percentFormat.format(share);
/** @param {number} share */
const wholePercent = (share) => wholePercentFormat.format(share);
/** @param {number} value */
const number = (value) => numberFormat.format(value);
/** @param {number} count @param {string} one @param {string} several */
const counted = (count, one, several) => `${number(count)} ${count === 1 ? one : several}`;

/** Return a label for display. @param {string} name */
const label = (name) => name.replaceAll("_", " ");

/** @param {Problem} problem */
function sentence(problem) {
  const known = Object.hasOwn(problems, problem.code) ? problems[problem.code] : null;
  const shown = known ?? (problem.detail || "An unknown error occurred. Try again.");
  return problem.requestId && problem.status >= 500 ? `${shown} (Request ${problem.requestId})` : shown;
}

/** What happened and what to do, by the problem's code. For other codes the page shows the API's own text. */
/** @type {Record<string, string>} */
const problems = {
  forbidden: "The API key is missing or wrong. Put a valid one into Settings, then try again.",
  too_many_requests: "There are too many requests at once. Wait a few seconds, then try again.",
  quota_exceeded: "The key's requests for today are used up. Try again tomorrow, or use another key in Settings.",
  request_too_large: "The photo is too large, even after this page made it smaller. Choose a smaller one.",
  image_too_large: "The photo has more pixels or bytes than this service accepts. Choose a smaller one.",
  not_an_image: "This file is not a supported photo. Choose a JPEG, PNG, WebP, GIF or BMP.",
  corrupt_image: "The file is damaged or incomplete. Export the photo again and choose the new file.",
  image_missing: "The file is empty, or cannot be read. Choose another one.",
  file_gone: "The file can no longer be read; it was moved or changed. Choose it again.",
  model_not_found: "The service does not have this model any more. Choose another one.",
  model_unusable: "This model's files are damaged or incomplete. Choose another model.",
  internal_error: "Something went wrong on the service's side. Try again in a moment.",
  timeout: "The service took too long. Try again in a moment.",
  not_configured: "This deployment does not offer that.",
  describe_refused: "The language model refuses to answer. Ask something else, or choose another photo.",
  describe_throttled: "The language model gets too many questions. Wait a moment, then ask again.",
  describe_timeout: "The language model took too long. Ask again in a moment.",
  describe_unavailable: "The language model cannot be reached. Ask again in a moment.",
  busy: "The service is busy. Wait a moment, then try again.",
  storage_unavailable: "The service's storage cannot be reached. Try again in a moment.",
  storage_timeout: "The service's storage took too long. Try again in a moment.",
  upload_refused:
    "The upload was refused: the photo is too large, or took too long. Try again, or let this page shrink it.",
  result_late: "The photo was uploaded, but its result is not there yet. Try again in a few minutes.",
  offline: "This device is offline. Connect it, then try again.",
  unreachable: "The service cannot be reached. Check the connection and the endpoint in Settings, then try again.",
  endpoint_blocked:
    "This page is not allowed to call that endpoint. Change it in Settings, or ask the page's operator to allow it.",
  not_litelens: "The endpoint is not a litelens API. Check it in Settings.",
  not_drawn: "The browser could not draw the photo; it may be too large for it. Choose a smaller one.",
};

export const text = {
  language,
  percent,
  wholePercent,
  number,
  label,
  sentence,

  nav: { label: "Views", classify: "Classify", model: "Model", ask: "Ask", settings: "Settings" },
  skip: "Skip to the content",
  titles: {
    classify: "Classify photos",
    compare: "Compare photos",
    model: "The model",
    ask: "Ask about a photo",
    settings: "Settings",
  },
  openSettings: "Open Settings",
  tryAgain: "Try again",
  loading: "Loading the model …",

  // Choosing photos
  drop: "Drop photos or folders here, or paste them.",
  tap: "Choose photos, or take one.",
  dropNow: "Drop to classify",
  choose: "Choose photos",
  camera: "Take a photo",
  hint: "Press a label to see where the model sees it.",
  samples: "No photo at hand? Try one of these.",
  sample: (/** @type {string} */ name) => `Try the sample: ${name}`,
  sampleNames: { cat: "a cat", coffee: "a cup of coffee", photographer: "a camera on a tripod" },
  privacy: "Photos are sent to the service; this page does not keep them.",

  // One photo
  photos: "Photos",
  waiting: "Waiting for its turn",
  preparing: "Preparing",
  sending: (/** @type {number} */ share) => `Sending, ${wholePercent(share)}`,
  classifying: "Classifying",
  following: "Uploaded; waiting for the result",
  throttled: (/** @type {number} */ seconds) =>
    `Too many requests; trying again in ${counted(seconds, "second", "seconds")}`,
  cancelled: "Cancelled",
  cancel: "Cancel",
  remove: "Remove",
  named: (/** @type {string} */ action, /** @type {string} */ name) => `${action}: ${name}`,
  labels: "Labels. Press one to see where the model sees it.",
  heatMapOf: (/** @type {string} */ name) => `Show where the model sees: ${label(name)}`,
  heatMapShown: (/** @type {string} */ name) => `Heat map: ${label(name)}`,
  heatMapLoading: (/** @type {string} */ name) => `Heat map: ${label(name)} …`,
  uncertain: (/** @type {number} */ threshold) => `Uncertain: below ${percent(threshold)}`,
  certain: "Certain",
  unfamiliar: "Unfamiliar: unlike all photos that the model knows",
  group: (/** @type {string} */ label, /** @type {number} */ confidence) => `${label}: ${percent(confidence)}`,
  groupTitle: "All labels of this group together",
  timing: (/** @type {number} */ total) => `${number(total)} ms`,
  timingTitle: "Time of decoding and inference",
  savePng: "Save PNG",
  savePngTitle: "Save the photo with its heat map",
  compare: "Compare",
  ask: "Ask",

  // All photos
  controls: "All photos",
  adjust: "Threshold, order and filters",
  threshold: "Uncertain below",
  resetThreshold: (/** @type {number} */ threshold) => `Reset to the model's ${percent(threshold)}`,
  opacity: "Heat map's opacity",
  sort: "Sort by",
  orders: {
    added: "order of adding",
    name: "file name",
    label: "label",
    surest: "confidence, highest first",
    "least sure": "confidence, lowest first",
  },
  show: "Show",
  kinds: { all: "all", certain: "certain", uncertain: "uncertain", failed: "failed" },
  labelFilter: "With label",
  anyLabel: "any",
  leastConfidence: "Minimum confidence",
  count: (/** @type {number} */ shown, /** @type {number} */ all) =>
    shown === all ? counted(all, "photo", "photos") : `${number(shown)} of ${counted(all, "photo", "photos")}`,
  countUncertain: (/** @type {number} */ count) => `${number(count)} uncertain`,
  countFailed: (/** @type {number} */ count) => `${number(count)} failed`,
  countWorking: (/** @type {number} */ count) => `${number(count)} in progress`,
  nothingShown: "No photo matches these filters.",
  resetFilters: "Show all",
  saveCsv: "Save CSV",
  saveJson: "Save JSON",
  retryFailed: (/** @type {number} */ count) => `Retry ${number(count)} failed`,
  removeAll: "Remove all",
  comparePhotos: (/** @type {number} */ count) => `Compare ${number(count)} photos`,
  announceDone: (/** @type {string} */ name, /** @type {Prediction} */ best) =>
    `${name}: ${label(best.label)}, ${percent(best.confidence)}.`,
  announceFailed: (/** @type {string} */ name, /** @type {Problem} */ problem) => `${name}: ${sentence(problem)}`,
  announceHeatMap: (/** @type {string} */ file, /** @type {string} */ name) => `${file}: heat map of ${label(name)}.`,
  announceCancelled: (/** @type {string} */ name) => `${name}: cancelled.`,
  announceLeft: (/** @type {number} */ count) => `${counted(count, "photo is", "photos are")} left.`,

  // Comparing
  back: "Back to all photos",
  compareWith: "Heat map of",
  noHeatMap: "none",
  below: (/** @type {number} */ confidence) => `below ${percent(confidence)}`,
  nothingToCompare: "To compare photos, tick “Compare” on at least two.",

  // The model
  chooseModel: "Model",
  warned: "Do not rely on this model.",
  warnedAnswers: "Do not rely on these labels: the model comes with a warning.",
  readWarning: "Read the warning",
  figures: {
    top1: ["Top-1 accuracy", "the first label is right"],
    top5: ["Top-5 accuracy", "one of the first five labels is right"],
    error: ["Calibration error", "average error of the confidences"],
    agreement: ["Agreement", "same label as before quantization"],
    size: ["Model size", "of the model file"],
    classes: ["Classes", "labels of the model"],
    images: ["Test images", "used to measure accuracy"],
  },
  megabytes: (/** @type {number} */ bytes) => `${number(bytes / 1e6)} MB`,
  input: (/** @type {number} */ width, /** @type {number} */ height) =>
    `It sees photos at ${width} × ${height} pixels.`,
  report: "The full report",
  reportLoading: "Fetching the report …",
  calibration: "Calibration",
  calibrationTitle: "Accuracy by confidence",
  calibrationLegend:
    "On the dotted line, a confidence of 70% is right 70% of the time. Wider dots stand for more images.",
  confidenceAxis: "confidence",
  accuracyAxis: "accuracy",
  calibrationPoint: (/** @type {number} */ confidence, /** @type {number} */ accuracy, /** @type {number} */ images) =>
    `Of ${counted(images, "image", "images")} with ${percent(confidence)} confidence, ${percent(accuracy)} are right`,
  calibrated: "calibrated",
  uncalibrated: "before calibration",
  coverage: "Certainty",
  coverageTitle: "Share of certain answers and their accuracy, by threshold",
  coverageLegend: (/** @type {number} */ threshold, /** @type {number} */ covered, /** @type {number} */ accuracy) =>
    `At the threshold of ${percent(threshold)}, ${percent(covered)} of the test images are certain, and ${percent(accuracy)} of those are right.`,
  coverageAxis: "share that is certain",
  learning: "Training",
  learningTitle: "Accuracy by epoch of training",
  epochAxis: "epoch",
  trained: "training",
  validated: "validation",
  classes: "Classes",
  classFilter: "Find a class",
  columns: { label: "Class", group: "Group", images: "Images", precision: "Precision", recall: "Recall", f1: "F1" },
  noClass: "No class matches.",
  confusion: "Confusion",
  confusionTitle: "Confusion matrix",
  confusionLegend:
    "Rows are the true classes, columns the model's answers. A stronger colour stands for more images; the diagonal is right. Press a row, or choose a class.",
  confusionOf: "Images of",
  confusionRow: (/** @type {string} */ name, /** @type {number} */ count, /** @type {number} */ all) =>
    `${label(name)}: ${number(count)} of ${number(all)}`,
  mostConfused: "Most confused",
  mostConfusedRow: (/** @type {string} */ there, /** @type {string} */ said) =>
    `${label(there)}, taken for ${label(said)}`,
  withoutMetrics: "This model was published without metrics.",
  withoutAccuracy: "Accuracy was not measured, because there were no labelled photos; only agreement was measured.",

  // Asking
  askWhich: "About which photo?",
  askMissing: "This deployment has no language model to ask.",
  askNothing: "Add a photo under Classify first; then ask about it here.",
  askPlaceholder: "What is it doing?",
  question: "Your question",
  send: "Send",
  you: "You",
  thinking: "Looking at the photo …",
  askNotice: "The photo and your questions go to a language model. It can be wrong.",
  answeredBy: (/** @type {string} */ model) => `Answered by ${model}`,
  conversation: "Conversation",

  // Settings
  service: "Service",
  endpoint: "Endpoint",
  endpointHint: "The API's address, such as https://api.example.com/live. Leave it empty to use the page's own server.",
  endpointWrong: "This is not the address of an API. It must begin with https:// and have no question mark.",
  key: "API key",
  keyHint: "Kept until you close this tab, and sent only to the endpoint.",
  keyWrong: "A key has only letters, digits and punctuation, without spaces.",
  save: "Save and connect",
  connected: (/** @type {string} */ name, /** @type {string} */ version) => `Connected: ${name} ${version}.`,
  connecting: "Connecting …",
  appearance: "Appearance",
  theme: "Theme",
  themes: { auto: "like the device", light: "light", dark: "dark" },
  largePhotos: "Photos that are too large for a request",
  largePhotosOptions: {
    shrink: "shrink them first, which saves data",
    upload: "upload them unchanged; the service keeps them for some days",
  },
};
