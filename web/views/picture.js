/** A photo with a heat map over it. */

import { answerOf } from "../results.js";
import { text } from "../text.js";
import { html, nothing } from "../vendor/lit-html/lit-html.js";

/** @import {Photo, HeatMap} from "../state.js" */

/** The largest enlargement of a small photo. */
const MAX_SCALE = 4;

/**
 * @param {Photo} photo
 * @param {string | null} label whose heat map is shown
 * @param {number} opacity 0 to 1
 * @param {{enlarge?: () => void, legend?: unknown}} [options] `enlarge` is called when the photo is pressed; the legend
 * lies on the photo, so that nothing moves when it appears
 */
export function picture(photo, label, opacity, { enlarge, legend } = {}) {
  const heatMap = label === null ? null : shownHeatMap(photo, label);
  const title = text.named(text.enlarge, photo.name);
  const isDrawn = photo.preview !== "";
  return html`
    <div class="picture ${isDrawn ? "" : "undrawn"}">
      ${isDrawn ? nothing : html`<p class="small">${text.undrawn}</p>`}
      <div class="frame" .style=${isDrawn ? nothing : proportion(photo)}>
        ${
          photo.preview
            ? html`<img src=${photo.preview} alt="" decoding="async" @load=${fit} @error=${markBroken} />`
            : nothing
        }
        ${
          heatMap
            ? html`<img
                class="heat"
                src=${heatMap.png}
                alt=""
                data-label=${heatMap.label}
                .style=${placed(photo, heatMap, opacity)}
              />`
            : nothing
        }
      </div>
      ${enlarge ? html`<button class="enlarge" aria-label=${title} @click=${enlarge}></button>` : nothing} ${legend}
    </div>
  `;
}

/** @param {Photo} photo @param {string} label @returns {HeatMap | null} */
export function shownHeatMap({ heatMaps }, label) {
  const state = Object.hasOwn(heatMaps, label) ? heatMaps[label] : null;
  return state?.stage === "done" ? state.map : null;
}

/** Return the heat map's position as shares of the photo, which may be shown in any size. */
/** @param {Photo} photo @param {HeatMap} heatMap @param {number} opacity */
function placed(photo, { region }, opacity) {
  const image = answerOf(photo)?.image;
  if (!image) return "";
  const share = (/** @type {number} */ part, /** @type {number} */ whole) => `${(part / whole) * 100}%`;
  return [
    `left: ${share(region.left, image.width)}`,
    `top: ${share(region.top, image.height)}`,
    `width: ${share(region.width, image.width)}`,
    `height: ${share(region.height, image.height)}`,
    `opacity: ${opacity}`,
  ].join("; ");
}

/** Return the frame's proportions if there is no picture that has them. @param {Photo} photo */
function proportion(photo) {
  const image = answerOf(photo)?.image;
  return image ? `--proportion: ${image.width / image.height}` : "";
}

/** Let the frame fill the space, in the photo's proportions. @param {Event} event */
function fit({ target }) {
  const { naturalWidth, naturalHeight, parentElement } = /** @type {HTMLImageElement} */ (target);
  parentElement?.style.setProperty("--proportion", `${naturalWidth / naturalHeight}`);
  parentElement?.style.setProperty("--most", `${naturalWidth * MAX_SCALE}px`);
  parentElement?.parentElement?.classList.remove("broken");
}

/** Hide the broken image of a file that is not a picture. @param {Event} event */
function markBroken({ target }) {
  /** @type {HTMLElement} */ (target).closest(".picture")?.classList.add("broken");
}
