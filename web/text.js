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

const dateFormat = new Intl.DateTimeFormat(language, { dateStyle: "long" });

/** Only a model without any error is right 100 times. @param {number} share */
const timesInHundred = (share) => (share === 1 ? 100 : Math.min(99, Math.round(share * 100)));
/** @param {number} share */
const percent = (share) => percentFormat.format(share);
/** @param {number} share */
const wholePercent = (share) => wholePercentFormat.format(share);
/** @param {number} value */
const number = (value) => numberFormat.format(value);
/** @param {number} count @param {string} one @param {string} several */
const counted = (count, one, several) => `${number(count)} ${count === 1 ? one : several}`;

/** @param {number} count @param {boolean} isPart */
const part = (count, isPart) => {
  if (isPart) return `only the ${number(count)} shown`;
  return count === 1 ? "1 photo" : `all ${number(count)} photos`;
};

/** Return a label for display. @param {string} name */
const label = (name) => name.replaceAll("_", " ");

/** @param {string} words */
const capital = (words) => words.charAt(0).toLocaleUpperCase(language) + words.slice(1);

/** How sure the model is, in words. The page has no others. */
const sureness = {
  sure: "sure",
  unsure: "not sure",
  probably: "Probably",
  unfamiliar: "Nothing like what I know",
  none: "None of the labels",
};

/**
 * Return the first label in words: the label with a comma, and the text before and after it.
 * @param {string} name
 * @param {boolean} isSure
 */
function headline(name, isSure) {
  return isSure
    ? { before: "", label: `${capital(label(name))}, `, after: sureness.sure }
    : { before: `${sureness.probably} `, label: `${label(name)}, `, after: sureness.unsure };
}

/** Return an answer in one line. @param {Prediction} best @param {boolean} isSure @param {boolean} isUnfamiliar */
function said({ label: name, confidence }, isSure, isUnfamiliar) {
  if (isUnfamiliar) return sureness.unfamiliar;
  return `${Object.values(headline(name, isSure)).join("")}, ${percent(confidence)}`;
}

/** Return the labels that are present in one line. @param {Prediction[]} present */
function saidLabels(present) {
  return (
    present.map(({ label: name, confidence }) => `${label(name)}, ${percent(confidence)}`).join("; ") || sureness.none
  );
}

/** @param {Problem} problem */
function sentence(problem) {
  const known = Object.hasOwn(problems, problem.code) ? problems[problem.code] : null;
  const isDetailed = problem.detail && (known === null || detailed.has(problem.code));
  const shown = isDetailed ? problem.detail : (known ?? "An unknown error occurred. Try again.");
  return problem.requestId && problem.status >= 500 ? `${shown} (Request ${problem.requestId})` : shown;
}

/** Codes for which the API's own text says more: what is wrong with this file. */
const detailed = new Set(["image_too_large", "not_an_image", "corrupt_image"]);

/** What happened and what to do, by the problem's code. For other codes the page shows the API's own text. */
/** @type {Record<string, string>} */
const problems = {
  forbidden: "The API key is missing or wrong. Put a valid one into Settings, then try again.",
  unauthorized: "This service needs a token, which this page cannot send. Ask its operator for a key.",
  too_many_requests: "There are too many requests at once. Wait a few seconds, then try again.",
  quota_exceeded: "The key's requests for today are used up. Try again tomorrow, or use another key in Settings.",
  request_too_large: "The photo is too large, even after this page made it smaller. Choose a smaller one.",
  image_too_large: "The photo has more pixels or bytes than this service accepts. Choose a smaller one.",
  not_an_image: "This file is not a supported photo. Choose a JPEG, PNG, WebP, GIF, BMP, HEIC or AVIF.",
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
  draft_busy: "Another tab is still learning. Wait until it is done, then try again.",
  draft_name_taken: "Something else has this name already. Choose another one.",
  draft_name_unusable: "A name cannot begin with a dot, nor have any of these characters: / : * ? < > | and quotes.",
  camera_missing: "There is no webcam, or the browser does not find it. Connect one, or choose photos.",
  camera_refused: "The browser does not let this page use the webcam. Allow it beside the address, then try again.",
  camera_in_use: "The webcam does not start; another program may use it. Close that one, then try again.",
  camera_gone: "The webcam was disconnected. Connect it, then try again.",
  not_drawn: "This browser cannot draw the photo. Export it as JPEG, or in a smaller size.",
};

export const text = {
  language,
  percent,
  wholePercent,
  number,
  label,
  sentence,
  sureness,
  headline,
  said,
  saidLabels,

  nav: { label: "Views", classify: "Classify", model: "Model", teach: "Teach", ask: "Ask", settings: "Settings" },
  skip: "Skip to the content",
  titles: {
    classify: "Classify photos",
    compare: "Compare photos",
    model: "The model",
    teach: "Teach it your own classes",
    ask: "Ask about a photo",
    settings: "Settings",
  },
  openSettings: "Open Settings",
  tryAgain: "Try again",
  byItself: "This page retries by itself.",
  loading: "Loading the model …",

  // Choosing photos
  drop: "Drop photos or folders here, or paste them.",
  tap: "Choose photos, or take one.",
  dropNow: "Drop to classify",
  choose: "Choose photos",
  undrawn: "This browser cannot show the photo.",
  camera: "Take a photo",
  samples: "No photo at hand? Try one of these.",
  sample: (/** @type {string} */ name) => `Try the sample: ${name}`,
  sampleNames: { cat: "a cat", coffee: "a cup of coffee", photographer: "a camera on a tripod" },
  privacy: "Photos are sent to the service. This browser keeps them until you clear them.",

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
  removeTitle: "Remove this photo",
  enlarge: "Enlarge",
  labels: "Labels",
  hint: "Press a label to see where the model sees it.",
  closest: "The labels that come closest:",
  heatMapOf: (/** @type {string} */ name) => `Show where the model sees: ${label(name)}`,
  heatMapShown: (/** @type {string} */ name) => `Heat map: ${label(name)}`,
  heatMapLoading: (/** @type {string} */ name) => `Heat map: ${label(name)} …`,
  coarse: "The heat map of this model would be too coarse to be useful.",
  little: "matters little",
  much: "much",
  details: "Details",
  facts: {
    group: "Group",
    image: "Image",
    model: "Model",
    time: "Time",
  },
  group: (/** @type {string} */ label, /** @type {number} */ confidence) => `${label}, ${percent(confidence)} together`,
  image: (/** @type {string} */ format, /** @type {number} */ width, /** @type {number} */ height) =>
    `${format}, ${width} × ${height} pixels`,
  timing: (/** @type {number} */ total) => `${number(total)} ms`,
  savePng: "Save picture",
  savePngTitle: "Save the photo with its label, and with the heat map if one is shown",
  compare: "Compare",
  ask: "Ask",

  // Files without an answer
  failures: "Without an answer",
  settled: "Failed and cancelled photos",

  // One photo, large
  close: "Close",
  previous: "Previous photo",
  next: "Next photo",
  position: (/** @type {number} */ place, /** @type {number} */ all) => `${number(place)} of ${number(all)}`,
  keys: "Keys: ← and → change the photo, 1 to 5 choose a label.",

  // An answer as code
  code: "Code",
  codeTitle: "Use it from code",
  codeOf: (/** @type {string} */ name) => `These lines give this answer for ${name}.`,
  codeKey: "They read the API key from the environment variable LITELENS_API_KEY.",
  codeConverted: (/** @type {number} */ width, /** @type {number} */ height) =>
    `This page sent the photo as a JPEG of ${width} × ${height} pixels. Export it like that first.`,
  copy: "Copy",
  copied: (/** @type {string} */ name) => `Copied: ${name}.`,

  // All photos
  controls: "All photos",
  adjust: "Sort and filter",
  threshold: "Not sure below",
  resetThreshold: (/** @type {number} */ threshold) => `Reset to the model's ${percent(threshold)}`,
  opacity: "Opacity",
  sort: "Sort by",
  orders: {
    added: "order added",
    name: "file name",
    label: "label",
    surest: "confidence, highest first",
    "least sure": "confidence, lowest first",
  },
  show: "Show",
  kinds: { all: "all", certain: sureness.sure, uncertain: sureness.unsure, failed: "failed" },
  labelFilter: "With label",
  anyLabel: "any",
  leastConfidence: "Minimum confidence",
  count: (/** @type {number} */ shown, /** @type {number} */ all) =>
    shown === all ? counted(all, "photo", "photos") : `${number(shown)} of ${counted(all, "photo", "photos")}`,
  countUncertain: (/** @type {number} */ count) => `${number(count)} ${sureness.unsure}`,
  countFailed: (/** @type {number} */ count) => `${number(count)} failed`,
  countWorking: (/** @type {number} */ count) => `${number(count)} in progress`,
  nothingShown: "No photo matches these filters.",
  resetFilters: "Show all",
  addPhotos: "Add photos",
  save: "Save",
  saveCsv: (/** @type {number} */ count, /** @type {boolean} */ isPart) => `Table (CSV), ${part(count, isPart)}`,
  saveJson: (/** @type {number} */ count, /** @type {boolean} */ isPart) => `JSON, ${part(count, isPart)}`,
  retryFailed: (/** @type {number} */ count) => `Try ${number(count)} again`,
  removeAll: "Clear",
  removed: (/** @type {number} */ count) => `${counted(count, "photo", "photos")} removed.`,
  undo: "Undo",
  comparePhotos: (/** @type {number} */ count) => `Compare ${number(count)}`,
  announceDone: (/** @type {string} */ name, /** @type {string} */ answer) => `${name}: ${answer}.`,
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
  verdict: (/** @type {number} */ share, /** @type {number} */ images, /** @type {string} */ dataset) =>
    `Right ${timesInHundred(share)} times in 100 on ${counted(images, "test image", "test images")}${dataset ? ` of ${dataset}` : ""}.`,
  verdictOfOthers: (/** @type {number} */ share, /** @type {number} */ images) =>
    `Right ${timesInHundred(share)} times in 100 on ${counted(images, "photo", "photos")}.`,
  verdictOfLabels: (/** @type {number} */ share, /** @type {number} */ images) =>
    `All labels right ${timesInHundred(share)} times in 100 on ${counted(images, "photo", "photos")}.`,
  source: (/** @type {string} */ created) =>
    `The figures come from the model's own bundle and were measured on ${dateFormat.format(new Date(created))}.`,
  sourceOfOthers: "Each photo was classified by a model that had learned only from the others (cross-validation).",
  warned: "Do not rely on this model.",
  warnedAnswers: "Do not rely on these labels: the model comes with a warning.",
  readWarning: "Read the warning",
  figures: {
    top1: ["Top-1 accuracy", "the first label is right"],
    top5: ["Top-5 accuracy", "one of the first five labels is right"],
    precision: ["Mean average precision", "photos with a label come before the others"],
    f1: ["Mean F1", "precision and recall of the labels"],
    error: ["Calibration error", "average error of the confidences"],
    agreement: ["Agreement", "same label as before quantization"],
    size: ["Model size", "of the model file"],
    classes: ["Classes", "labels of the model"],
    images: ["Test images", "used for these figures"],
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
  withoutMetrics: "How often it is right is not known: this model was published without metrics.",
  withoutAccuracy: "How often it is right was not measured: there were no labelled photos.",

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
  saveSettings: "Save and connect",
  connected: (/** @type {string} */ name, /** @type {string} */ version) => `Connected: ${name} ${version}.`,
  connecting: "Connecting …",
  keeping: "On this device",
  keepingHint: (/** @type {number} */ photos, /** @type {number} */ bytes) =>
    `This browser keeps the first ${number(photos)} photos, up to ${number(bytes / 1e6)} MB, and their answers until you clear them. The key and the endpoint are kept until you close this tab.`,
  keepingNothing: "This browser keeps nothing: photos are gone after a reload.",
  notKept: (/** @type {number} */ count) =>
    `${counted(count, "photo", "photos")} too many to keep: ${count === 1 ? "it" : "they"} will be gone after a reload.`,
  forget: "Forget everything",
  appearance: "Appearance",
  theme: "Theme",
  themes: { auto: "like the device", light: "light", dark: "dark" },
  largePhotos: "Photos that are too large for a request",
  largePhotosOptions: {
    shrink: "shrink them first, which saves data",
    upload: "upload them unchanged; the service keeps them for some days",
  },

  // Teaching
  teach: {
    opening: "Opening …",
    notLoaded: "This view could not be loaded. Reload the page.",
    notHere: "Teaching works on your own computer: start make run, and open the page at the address that it prints.",
    lead: "Show it some photos of each thing. It learns to tell them apart in seconds, and nothing leaves this computer.",
    gone: "The server on this computer has stopped. Start make run again; this page then goes on by itself.",
    inUse: "Another tab is changing or learning. This page goes on by itself in a moment.",

    stepPhotos: "Your photos",
    stepLearn: "Learn",
    stepTry: "Try it",
    stepCheck: "Photos to check",
    stepKeep: "Keep it",

    // Classes
    className: (/** @type {number} */ number) => `Class ${number}`,
    nameOf: (/** @type {number} */ number) => `Name of class ${number}`,
    namePlaceholders: ["Name it, such as cup", "And another, such as glass"],
    namePlaceholder: "Name it",
    addClass: "Add a class",
    photos: (/** @type {number} */ count) => counted(count, "photo", "photos"),
    dropHere: "Drop photos or a folder here, or",
    dropHint: "Drop photos onto one of the classes. A folder that you drop becomes a class.",
    choosePhotos: "Choose photos",
    adding: (/** @type {number} */ done, /** @type {number} */ all) => `Adding ${number(done)} of ${number(all)}`,
    morePhotos: (/** @type {number} */ count) => `${number(count)} more would make it more reliable.`,
    removePhoto: (/** @type {number} */ index, /** @type {string} */ name) =>
      `Remove photo ${number(index)} of ${name}`,
    showAll: (/** @type {number} */ count) => `${number(count)} more`,
    photoRemoved: "Removed.",
    undoRemoval: "Undo",
    removeAsk: (/** @type {number} */ count) => `Remove it with ${counted(count, "photo", "photos")}?`,
    reset: "Start over",
    resetAsk: "Remove all classes and photos?",
    resetYes: "Remove all",
    no: "No",
    refused: (/** @type {number} */ count) => `${counted(count, "file was", "files were")} not added`,
    dismiss: "Close",
    announceAdded: (/** @type {string} */ name, /** @type {number} */ count) =>
      `${name}: ${counted(count, "photo", "photos")}.`,
    announceRemoved: (/** @type {string} */ name) => `Removed: ${name}.`,
    announcePhotoRemoved: (/** @type {string} */ name) => `Removed a photo of ${name}.`,
    announceMoved: (/** @type {string} */ name) => `Moved to ${name}.`,

    // The webcam
    cameraOn: "Webcam",
    cameraOff: "Close webcam",
    cameraAsking: "The browser asks whether this page may use the webcam.",
    shutter: "Hold to take photos",
    shutterHint: "Turn and move the thing while you hold, so that the photos differ.",

    // Learning
    learn: "Learn",
    learnAgain: "Learn again",
    steps: [
      "Name two things, such as cup and glass.",
      "Add photos of each. Two are enough to begin; ten or more make it reliable.",
      "Press Learn, and try it at once.",
    ],
    stillNeeded: "Still needed:",
    needClass: "another class",
    needPhotos: (/** @type {number} */ count, /** @type {string} */ name) =>
      `${counted(count, "more photo", "more photos")} of ${name}`,
    outdated: "The photos have changed since it learned.",
    learning: (/** @type {number} */ count) => `Learning from ${counted(count, "photo", "photos")} …`,
    seconds: (/** @type {number} */ count) => counted(count, "second", "seconds"),
    read: (/** @type {number} */ done, /** @type {number} */ total) =>
      `; ${number(done)} of ${counted(total, "photo", "photos")} read`,
    right: (/** @type {number} */ share, /** @type {number} */ count) => {
      const times = Math.min(count, 100);
      return `Right ${number(Math.round(share * times))} times in ${number(times)}`;
    },
    unseen: "on photos that it had not seen: each was tested after learning from the others.",
    few: (/** @type {string} */ name, /** @type {number} */ count) =>
      `That is little to go by: ${name} has only ${counted(count, "different photo", "different photos")}. With ten or more of each class, you can rely on it.`,
    guessing:
      "That is hardly better than guessing. Use photos that show the thing larger, or classes that look less alike.",
    confused: (/** @type {number} */ count, /** @type {string} */ truth, /** @type {string} */ said) =>
      `${counted(count, "photo", "photos")} of ${truth} taken for ${said}`,
    announceLearned: "It has learned. Try it.",

    // Photos to check
    misplaced: (/** @type {number} */ count) =>
      count === 1
        ? "One photo seems to be in the wrong class:"
        : `${number(count)} photos seem to be in the wrong class:`,
    looksLike: (/** @type {string} */ name, /** @type {string} */ other) => `In ${name}, but looks like ${other}`,
    moveTo: (/** @type {string} */ name) => `Move to ${name}`,
    isRight: "It is right",
    copies: (/** @type {number} */ count) =>
      count === 1 ? "One photo is there twice:" : `${number(count)} photos are copies of others:`,
    removeOne: "Remove one",
    removeCopy: (/** @type {string} */ name) => `Remove it from ${name}`,
    removeCopies: (/** @type {number} */ count) => `Remove all ${number(count)} copies`,
    similar: (/** @type {number} */ count) =>
      `${counted(count, "pair of photos is", "pairs of photos are")} nearly the same. They teach it little more than one photo.`,

    // Trying
    tryHere: "Drop other photos here, or",
    tryPhotos: "Try photos",
    looking: "Looking …",
    noUnfamiliar: "With 20 different photos or more, it also notices things that are none of these.",
    announceTried: (/** @type {{predictions: Prediction[]}} */ { predictions: [best] }) =>
      `${best.label}, ${wholePercent(best.confidence)}.`,

    // Keeping
    modelName: "Name of the model",
    modelNameHint: "Lower-case letters, digits, - and _, such as pets",
    keep: "Keep it",
    keeping: "Writing the model …",
    keepOutdated: "The photos have changed. Learn again first, so that you keep what you have tried.",
    download: "Download (.zip)",
    nextVersion: (/** @type {string} */ name) => `There is a model ${name} already; this becomes its next version.`,
    kept: (/** @type {string} */ name) => `Kept in models/${name}.`,
    use: "Classify photos with it",
    commands: {
      classify: (/** @type {string} */ name) => `make classify IMAGE=photo.jpg BUNDLE=models/${name}`,
      model: (/** @type {string} */ name) => `"Model=${name}",`,
      deploy: "make deploy ENV=dev",
    },
    nextClassify: "In a terminal:",
    nextModel: "To deploy it to AWS, put this in place of the other Model in samconfig.toml:",
    nextDeploy: "then run:",
    copyLine: "Copy",
    copiedLine: "Copied",
  },
};
