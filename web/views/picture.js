/** A photo with a heat map over it. */

import { answerOf } from "../results.js";
import { html, nothing } from "../vendor/lit-html/lit-html.js";

/** @import {Photo, HeatMap} from "../state.js" */

/** @param {Photo} photo @param {string | null} label whose heat map is shown @param {number} opacity 0 to 1 */
export function picture(photo, label, opacity) {
  const heatMap = label === null ? null : shownHeatMap(photo, label);
  return html`
    <div class="picture">
      <div class="frame">
        ${
          photo.preview
            ? html`<img src=${photo.preview} alt="" decoding="async" @load=${markBroken} @error=${markBroken} />`
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

/** Hide the broken image of a file that is not a picture. @param {Event} event */
function markBroken({ target, type }) {
  /** @type {HTMLElement} */ (target).closest(".picture")?.classList.toggle("broken", type === "error");
}
