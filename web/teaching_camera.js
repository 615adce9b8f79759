/** The webcam: takes photos for a class, or shows live what the learned model sees. */

import { failure, problemOf } from "./api.js";
import { current, onChange } from "./state.js";
import { addPhotos, drawn } from "./teaching.js";
import { classify } from "./teaching_model.js";
import { change, state } from "./teaching_state.js";

/** @import {Answer, Problem} from "./state.js" */

/** Milliseconds between two photos while the button is held, and between two live answers. */
const PAUSE = { burst: 250, live: 100 };

/** Pixels of the longer side. */
const SIDE = { photo: 640, live: 480 };

/** The number of photos that may wait to be stored while the button is held. */
const MAX_WAITING = 12;

/**
 * @typedef {{
 *   owner: number | "try",
 *   stage: "asking" | "on" | "failed",
 *   problem: Problem | null,
 *   answer: Answer | null,
 * }} Camera `owner` is the key of a class, or the place to try; `answer` is the last live one
 */

/** @type {Camera | null} */
let camera = null;

/** @type {MediaStream | null} */
let stream = null;

/** The picture of the webcam, which is moved to where it is shown. */
export const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true, autoplay: true });
// Browsers pause a video that is moved.
video.addEventListener("pause", () => void (stream && video.play().catch(() => undefined)));

/** @type {ReturnType<typeof setInterval> | undefined} */
let burst;

onChange(() => {
  if (camera && current().view !== "teach") close();
});
window.addEventListener("pagehide", () => end());

export function cameraOf(/** @type {number | "try"} */ owner) {
  return camera?.owner === owner ? camera : null;
}

/** Ask for the webcam, unless it is on, and show its picture there. @param {number | "try"} owner */
export async function open(owner) {
  release();
  const isOn = stream?.active;
  const asked = show({ owner, stage: isOn ? "on" : "asking", problem: null, answer: null });
  if (!isOn) {
    try {
      const found = await request();
      if (camera !== asked) return found.getTracks().forEach((track) => track.stop());
      stream = found;
      found.getVideoTracks()[0].onended = () => fail(failure("camera_gone"));
      video.srcObject = found;
      await video.play();
      show({ ...asked, stage: "on" });
    } catch (error) {
      if (camera === asked) fail(error);
      return;
    }
  }
  if (owner === "try") void answerLive();
}

/** @returns {Promise<MediaStream>} */
async function request() {
  if (!navigator.mediaDevices) throw failure("camera_missing");
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    const { name } = /** @type {DOMException} */ (error);
    if (name === "NotAllowedError" || name === "SecurityError") throw failure("camera_refused");
    if (name === "NotFoundError") throw failure("camera_missing");
    throw failure("camera_in_use");
  }
}

export function close() {
  end();
  camera = null;
  change({});
}

function end() {
  release();
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  video.srcObject = null;
}

/** @param {unknown} error */
function fail(error) {
  end();
  if (camera) show({ ...camera, stage: "failed", problem: problemOf(error) });
}

/** @param {Camera} shown */
function show(shown) {
  camera = shown;
  change({});
  return shown;
}

/** Take photos until release(). @param {number} key of their class */
export function press(key) {
  release();
  void take(key);
  burst = setInterval(() => void take(key), PAUSE.burst);
}

export function release() {
  clearInterval(burst);
}

/** @param {number} key */
export async function take(key) {
  const { done, total } = state().classes.find((each) => each.key === key)?.adding ?? { done: 0, total: 0 };
  if (stream?.active && total - done < MAX_WAITING) await addPhotos(key, [await frame(SIDE.photo)]);
}

/** @param {number} side */
function frame(side) {
  return drawn(video, video.videoWidth, video.videoHeight, side);
}

/** Classify what the webcam sees, until it is off or used elsewhere. */
async function answerLive() {
  const ours = stream;
  while (stream?.active && stream === ours && camera?.owner === "try") {
    try {
      const answer = await classify(await frame(SIDE.live));
      if (camera?.owner === "try" && stream === ours) show({ ...camera, answer });
    } catch (error) {
      return fail(error);
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE.live));
  }
}
