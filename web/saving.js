/** Saves files. */

import { failure } from "./api.js";
import { blobOf, canvasOf, contextOf } from "./images.js";

/** @import {HeatMap} from "./state.js" */

const REVOKE_AFTER_MS = 60_000;

/** The maximum number of pixels of a canvas; phones fail with more. */
const MAX_PIXELS = 12_000_000;

/** @param {Blob} content @param {string} name */
export function save(content, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(content), download: name });
  link.click();
  // Some browsers read the file only after this function has returned.
  setTimeout(() => URL.revokeObjectURL(link.href), REVOKE_AFTER_MS);
}

/**
 * Draw the photo upright, with the heat map over it if there is one, as PNG.
 * @param {string} url the photo's
 * @param {HeatMap | null} heatMap
 * @param {{width: number, height: number}} answered the photo's size that the heat map's region refers to
 * @param {number} opacity
 * @returns {Promise<Blob>}
 */
export async function withHeatMap(url, heatMap, answered, opacity) {
  const photo = await decoded(url);
  const scale = Math.min(1, Math.sqrt(MAX_PIXELS / (photo.naturalWidth * photo.naturalHeight)));
  const canvas = canvasOf(photo.naturalWidth * scale, photo.naturalHeight * scale);
  const context = contextOf(canvas);
  context.drawImage(photo, 0, 0, canvas.width, canvas.height);
  if (heatMap) {
    const { left, top, width, height } = heatMap.region;
    const [across, down] = [canvas.width / answered.width, canvas.height / answered.height];
    context.globalAlpha = opacity;
    context.drawImage(await decoded(heatMap.png), left * across, top * down, width * across, height * down);
  }
  return blobOf(canvas, "image/png");
}

/** @param {string} url @returns {Promise<HTMLImageElement>} */
async function decoded(url) {
  const image = Object.assign(new Image(), { src: url });
  await image.decode().catch(() => {
    throw failure("not_drawn");
  });
  return image;
}
