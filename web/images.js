/** Photos as files: which of them the API takes as they are, and how the others are made so. */

import { Failure, failure } from "./api.js";

/** @import {Model} from "./state.js" */

/** What Lambda's event of 6 MB holds in base64, headers and all. */
const REQUEST_BYTES = 4_400_000;

/** What the API answers to a photo that it would take if it were smaller. */
const TOO_LARGE = new Set(["request_too_large", "image_too_large"]);

/** Pixels of the longer side after shrinking; far more than any model sees. */
const SHRUNKEN_SIDE = 2048;
const PREVIEW_SIDE = 840;
const JPEG_QUALITY = 0.92;

/** How files begin that the API takes. @type {[string, RegExp][]} */
const SIGNATURES = [
  ["image/jpeg", /^\xff\xd8\xff/],
  ["image/png", /^\x89PNG\r\n\x1a\n/],
  ["image/webp", /^RIFF[^]{4}WEBP/],
  ["image/gif", /^GIF8[79]a/],
  ["image/bmp", /^BM/],
];

/**
 * By EXIF the API turns a WebP upright, which browsers do not: what is sent must be what is seen, or heat maps lie askew.
 * The flag is the container's (RFC 9649, section 2.7.1).
 */
const WEBP_WITH_EXIF = /^RIFF[^]{4}WEBPVP8X[^]{4}[\x08-\x0f\x18-\x1f\x28-\x2f\x38-\x3f]/;

/**
 * The type that the API takes these bytes as, whatever the file is called, or null when they must be made JPEG.
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
    return await file.slice(0, 24).arrayBuffer();
  } catch {
    // Chosen earlier, and moved or changed since.
    throw failure("file_gone");
  }
}

/**
 * What `send` makes of the photo, which is made smaller for it once it is found too large.
 * @template T
 * @param {Blob} file
 * @param {Model | null} model whose limits hold
 * @param {(image: Blob) => Promise<T>} send
 * @returns {Promise<T>}
 */
export async function inRequest(file, model, send) {
  const type = await typeOf(file);
  if (!type || file.size > requestBytes(model)) return send(await shrunken(file));
  return orShrunken(file, () => send(file.slice(0, file.size, type)), send);
}

/**
 * What the first way makes of the photo as it is, or the second of a smaller one where it is found too large.
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
    return send(await shrunken(file));
  }
}

/**
 * The photo as it can be uploaded, or null when it needs no upload or the deployment takes no such.
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
 * The photo upright, on white where it is transparent, and with a longer side of at most 2048 pixels, as JPEG.
 * @param {Blob} file
 * @returns {Promise<Blob>}
 */
function shrunken(file) {
  return drawn(file, SHRUNKEN_SIDE);
}

/** The same, much smaller, to be looked at. @param {Blob} file */
export function previewOf(file) {
  return drawn(file, PREVIEW_SIDE);
}

/** @param {Blob} file @param {number} side the longer one's most pixels @returns {Promise<Blob>} */
async function drawn(file, side) {
  /** @type {ImageBitmap} */
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw failure((await typeOf(file)) ? "corrupt_image" : "not_an_image");
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
