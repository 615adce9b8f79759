/** Photos as files: detects formats that the API accepts, and converts the others. */

import { Failure, failure, problemOf } from "./api.js";

/** @import {Model} from "./state.js" */

/** The maximum size of an image in a request, in bytes: Lambda's event of 6 MB contains it as base64, with headers. */
const REQUEST_BYTES = 4_400_000;

/** Codes of the API for photos that it would accept in a smaller size. */
const TOO_LARGE = new Set(["request_too_large", "image_too_large"]);

/** Pixels of the longer side after shrinking; far more than any model's input. */
const SHRUNKEN_SIDE = 2048;
const PREVIEW_SIDE = 840;
const JPEG_QUALITY = 0.92;

/** First bytes of the formats that the API accepts. @type {[string, RegExp][]} */
const SIGNATURES = [
  ["image/jpeg", /^\xff\xd8\xff/],
  ["image/png", /^\x89PNG\r\n\x1a\n/],
  ["image/webp", /^RIFF[^]{4}WEBP/],
  ["image/gif", /^GIF8[79]a/],
  ["image/bmp", /^BM/],
  ["image/avif", /^[^]{4}ftyp(avi[fs]|m[is]f1[^]{4}([^]{4}){0,3}avi[fs])/],
  ["image/heic", /^[^]{4}ftyp(he[iv][cmsx]|m[is]f1)/],
];

/** The number of bytes from which every one of these formats is recognized. */
const SIGNATURE_BYTES = 32;

/** The files that a choice of photos offers: systems without HEIC do not count it as an image. */
export const OFFERED = "image/*,.heic,.heif,.avif";

/**
 * The API rotates a WebP by its EXIF, but browsers do not. Such a file is converted, so that heat maps fit the photo.
 * The flag is in the container's header (RFC 9649, section 2.7.1).
 */
const WEBP_WITH_EXIF = /^RIFF[^]{4}WEBPVP8X[^]{4}[\x08-\x0f\x18-\x1f\x28-\x2f\x38-\x3f]/;

/** The number of bytes from which the API recognizes a format that it does not accept. */
const RECOGNIZED_BYTES = 65_536;

/** Types of files that never move: browsers show the first and only frame of them. */
const STILL = new Set(["image/jpeg", "image/bmp"]);

/** The largest file, in bytes, that is shown without a smaller preview. */
const MAX_PREVIEW_BYTES = 1_000_000;

/**
 * Return the media type by the first bytes, not by the name; null if the photo must be converted to JPEG.
 * @param {Blob} file
 * @returns {Promise<string | null>}
 */
async function typeOf(file) {
  if (file.size === 0) throw failure("image_missing");
  const head = String.fromCharCode(...new Uint8Array(await beginning(file)));
  if (WEBP_WITH_EXIF.test(head)) return null;
  return SIGNATURES.find(([, signature]) => signature.test(head))?.[0] ?? null;
}

/** @param {Blob} file */
async function beginning(file) {
  try {
    return await file.slice(0, SIGNATURE_BYTES).arrayBuffer();
  } catch {
    // The file was moved or changed after it was chosen.
    throw failure("file_gone");
  }
}

/**
 * Send a photo; if it is too large, shrink it and send it again.
 * @template T
 * @param {Blob} file
 * @param {Model | null} model the model whose limits apply
 * @param {(image: Blob) => Promise<T>} send
 * @returns {Promise<T>}
 */
export async function inRequest(file, model, send) {
  const type = await typeOf(file);
  if (!type) return send(await shrunken(file).catch((error) => explained(error, file, send)));
  if (file.size > requestBytes(model)) return send(await shrunken(file));
  return orShrunken(file, () => send(file.slice(0, file.size, type)), send);
}

/**
 * Let the API say what kind of file it is that the browser cannot draw either.
 * @param {unknown} error the browser's
 * @param {Blob} file
 * @param {(image: Blob) => Promise<unknown>} send
 * @returns {Promise<never>}
 */
async function explained(error, file, send) {
  if (problemOf(error).code === "not_an_image") await send(file.slice(0, RECOGNIZED_BYTES, "image/jpeg"));
  throw error;
}

/**
 * Send the photo unchanged with `asItIs`; if it is too large, send a smaller one with `send`.
 * @template T
 * @param {Blob} file
 * @param {() => Promise<T>} asItIs
 * @param {(image: Blob) => Promise<T>} send
 * @returns {Promise<T>}
 */
export async function orShrunken(file, asItIs, send) {
  try {
    return await asItIs();
  } catch (error) {
    if (!(error instanceof Failure) || !TOO_LARGE.has(error.problem.code)) throw error;
    // What the browser cannot draw is still too large, not damaged.
    return send(await shrunken(file).catch(() => Promise.reject(error)));
  }
}

/**
 * Return the photo for an upload, or null if it fits into a request or cannot be uploaded.
 * @param {Blob} file
 * @param {Model | null} model
 * @returns {Promise<Blob | null>}
 */
export async function forUpload(file, model) {
  const type = await typeOf(file);
  const most = model?.limits.upload_bytes ?? 0;
  if (!type || file.size > most || file.size <= requestBytes(model)) return null;
  return file.slice(0, file.size, type);
}

/**
 * @param {Blob} image
 * @returns {Promise<string>} its bytes in base64
 */
export async function base64Of(image) {
  const bytes = new Uint8Array(await image.arrayBuffer());
  let text = "";
  // Longer argument lists overflow the stack.
  for (let start = 0; start < bytes.length; start += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(start, start + 0x8000));
  }
  return btoa(text);
}

/** @param {Model | null} model */
function requestBytes(model) {
  return Math.min(REQUEST_BYTES, model?.limits.request_bytes ?? REQUEST_BYTES);
}

/**
 * Convert the photo to a JPEG: upright, transparency on white, with a longer side of at most 2048 pixels.
 * @param {Blob} file
 * @returns {Promise<Blob>}
 */
function shrunken(file) {
  return drawn(file, SHRUNKEN_SIDE);
}

/**
 * Return a JPEG to display instead of the file, or null if browsers can show the file itself. A large file would fill
 * the memory, and an animation would play on beside the answer for its first frame. Throws if it cannot be drawn.
 * @param {Blob} file
 * @returns {Promise<Blob | null>}
 */
export async function previewOf(file) {
  const isStill = STILL.has((await typeOf(file)) ?? "");
  if (isStill && file.size <= MAX_PREVIEW_BYTES) return null;
  return drawn(file, PREVIEW_SIDE).catch((error) => (isStill ? null : Promise.reject(error)));
}

/** @param {Blob} file @param {number} side the maximum of the longer side, in pixels @returns {Promise<Blob>} */
async function drawn(file, side) {
  /** @type {ImageBitmap} */
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw failure((await typeOf(file)) ? "not_drawn" : "not_an_image");
  }
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = canvasOf(Math.max(1, bitmap.width * scale), Math.max(1, bitmap.height * scale));
  const context = contextOf(canvas);
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return blobOf(canvas, "image/jpeg", JPEG_QUALITY);
}

/** @param {number} width @param {number} height */
export function canvasOf(width, height) {
  return Object.assign(document.createElement("canvas"), { width: Math.round(width), height: Math.round(height) });
}

/** @param {HTMLCanvasElement} canvas @returns {CanvasRenderingContext2D} */
export function contextOf(canvas) {
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.imageSmoothingQuality = "high";
  return context;
}

/** @param {HTMLCanvasElement} canvas @param {string} type @param {number} [quality] @returns {Promise<Blob>} */
export function blobOf(canvas, type, quality) {
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(failure("not_drawn"))), type, quality),
  );
}
