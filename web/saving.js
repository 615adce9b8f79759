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

/** The height of the caption as a share of the picture's shorter side, and the smallest one in pixels. */
const CAPTION = 0.08;
const MIN_CAPTION = 24;

/** The share of a heat map's side over which it fades, as in style.css. */
const FADE = 0.08;

/**
 * Draw the photo upright above a caption, with the heat map over it if there is one, as PNG.
 * @param {string} url the photo's
 * @param {string} caption
 * @param {HeatMap | null} heatMap
 * @param {{width: number, height: number}} answered the photo's size that the heat map's region refers to
 * @param {number} opacity
 * @returns {Promise<Blob>}
 */
export async function withCaption(url, caption, heatMap, answered, opacity) {
  const photo = await decoded(url);
  const scale = Math.min(1, Math.sqrt(MAX_PIXELS / (photo.naturalWidth * photo.naturalHeight)));
  const [width, height] = [photo.naturalWidth * scale, photo.naturalHeight * scale].map(Math.round);
  const strip = Math.max(MIN_CAPTION, Math.round(Math.min(width, height) * CAPTION));
  const canvas = canvasOf(width, height + strip);
  const context = contextOf(canvas);
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height + strip);
  context.drawImage(photo, 0, 0, width, height);
  if (heatMap) {
    const { region, png } = heatMap;
    const [across, down] = [width / answered.width, height / answered.height];
    const faint = faded(await decoded(png), region.width * across, region.height * down);
    context.globalAlpha = opacity;
    context.drawImage(faint, region.left * across, region.top * down);
    context.globalAlpha = 1;
  }
  context.fillStyle = "#1b1b25";
  context.font = `600 ${Math.round(strip * 0.55)}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  context.fillText(caption, strip / 3, height + strip / 2, width - (strip / 3) * 2);
  return blobOf(canvas, "image/png");
}

/** Draw an image in this size, with edges that fade. @param {CanvasImageSource} image @param {number} width @param {number} height */
function faded(image, width, height) {
  const canvas = canvasOf(width, height);
  const context = contextOf(canvas);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "destination-in";
  for (const [x, y] of [
    [canvas.width, 0],
    [0, canvas.height],
  ]) {
    const fade = context.createLinearGradient(0, 0, x, y);
    for (const [place, colour] of /** @type {[number, string][]} */ ([
      [0, "#0000"],
      [FADE, "#000"],
      [1 - FADE, "#000"],
      [1, "#0000"],
    ])) {
      fade.addColorStop(place, colour);
    }
    context.fillStyle = fade;
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
  return canvas;
}

/** @param {string} url @returns {Promise<HTMLImageElement>} */
async function decoded(url) {
  const image = Object.assign(new Image(), { src: url });
  await image.decode().catch(() => {
    throw failure("not_drawn");
  });
  return image;
}
