// What the library and generator views share besides core.js: clicks, keys, pictures.
import { html } from "./core.js";

/** A plain left click: anything else (new tab, new window) is the browser's. */
export function ownClick(event) {
  return event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey && !event.defaultPrevented;
}

/** Whether keys typed now belong to a field. */
export function isTyping(target) {
  return target instanceof Element && target.closest("input, textarea, select, [contenteditable='true']") !== null;
}

/** Widths of the two files of a Thumb (320 and 1024 px long side, never enlarged), as `srcset` wants them. */
function thumbWidths({ width, height }) {
  const longest = Math.max(width || 1, height || 1);
  return [320, 1024].map((side) => Math.max(1, Math.round(((width || 1) * Math.min(side, longest)) / longest)));
}

/**
 * `<img>` of a Thumb in both sizes.
 * @param {{small: string, large: string, width: number, height: number}} thumb
 * @param {{sizes: string, alt?: string, lazy?: boolean}} options `sizes` as in the attribute
 */
export function thumbImage(thumb, { sizes, alt = "", lazy = true }) {
  const [small, large] = thumbWidths(thumb);
  const srcset = large > small ? `${thumb.small} ${small}w, ${thumb.large} ${large}w` : `${thumb.small} ${small}w`;
  return html`<img src="${thumb.small}" srcset="${srcset}" sizes="${sizes}" alt="${alt}" loading="${lazy ? "lazy" : "eager"}" decoding="async" draggable="false" />`;
}

/** The blurred first impression of a Thumb as an inline style, "" when there is none. Only pictures, only inline ones. */
export function placeholderStyle(thumb) {
  const url = thumb?.placeholder;
  return typeof url === "string" && /^data:image\/(webp|png|jpeg);base64,[A-Za-z0-9+/=]+$/.test(url) ? `background-image:url(${url})` : "";
}

/** Mark pictures below `root` as loaded (they fade in over the placeholder), and take out those that fail. */
export function fadeIn(root) {
  for (const picture of root.querySelectorAll("img")) {
    const box = picture.parentElement;
    const shown = () => {
      box.classList.add("is-loaded");
      if (picture.hasAttribute("data-soft")) soften(picture);
    };
    if (picture.complete && picture.naturalWidth) shown();
    else {
      picture.addEventListener("load", shown, { once: true });
      picture.addEventListener("error", () => box.classList.add("is-missing"), { once: true });
    }
  }
}

/**
 * Lay a softly enlarged copy over a picture that is shown far above its size: browsers enlarge linearly, which makes
 * stars of single pixels. The picture itself stays underneath, for saving it and for screen readers.
 * @param {HTMLImageElement} picture loaded, alone in a positioned box of its own
 */
export function soften(picture) {
  const box = picture.parentElement;
  box.querySelector(":scope > canvas")?.remove();
  const { naturalWidth: width, naturalHeight: height, clientWidth } = picture;
  const factor = Math.ceil((clientWidth * devicePixelRatio) / (width || 1));
  if (!width || factor < 3) return;
  const canvas = document.createElement("canvas");
  const scale = Math.min(factor, 1536 / Math.max(width, height));
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.className = "vs-soft";
  canvas.setAttribute("aria-hidden", "true");
  const paint = canvas.getContext("2d");
  paint.imageSmoothingQuality = "high";
  paint.drawImage(picture, 0, 0, canvas.width, canvas.height);
  picture.after(canvas);
}
