// Draw the images of data sets on canvases, and read the reader's pictures.

import { h } from "../dom.js";

const LARGEST = 1024; // pixels of a picture's longer side when it is sent, at most

/**
 * Create a canvas with an image of a `shape`, [channels, height, width]. `pixels` are 0 to 255 with 0 as black, channel by
 * channel and row by row. An image with one channel may also be an array of rows.
 */
export function digit(pixels, label, shape) {
  const canvas = h("canvas", { class: "digit", role: "img", "aria-label": label });
  paint(canvas, pixels, shape);
  return canvas;
}

/** Draw an image on a canvas. Three channels are red, green and blue; for any other number the mean is drawn. */
export function paint(canvas, pixels, [channels, height, width]) {
  const planes = planesOf(pixels.flat(), channels);
  colour(canvas, width, height, channels === 3 ? (i) => planes.map((plane) => plane[i]) : (i) => Array(3).fill(mean(planes, i)));
}

/** Return the pixels of a black image. */
export const black = ([channels, height, width]) => Array(channels * height * width).fill(0);

/**
 * Draw an image with its saliency map: orange pixels support the answer, blue pixels count against it. `saliency` holds
 * rows of how far the answer's probability falls when a pixel is covered.
 */
export function paintSaliency(canvas, pixels, saliency) {
  const [flat, falls] = [pixels.flat(), saliency.flat()];
  const planes = planesOf(flat, flat.length / falls.length);
  const most = falls.reduce((largest, fall) => Math.max(largest, Math.abs(fall)), 0.01);
  colour(canvas, saliency[0].length, saliency.length, (i) => {
    const share = Math.min(1, Math.abs(falls[i]) / most) * 0.85;
    const [grey, tone] = [mean(planes, i) * 0.75, falls[i] > 0 ? [255, 140, 30] : [70, 140, 255]];
    return tone.map((channel) => grey * (1 - share) + channel * share);
  });
}

function planesOf(flat, channels) {
  const size = flat.length / channels;
  return Array.from({ length: channels }, (_, c) => flat.slice(c * size, (c + 1) * size));
}

const mean = (planes, i) => planes.reduce((sum, plane) => sum + plane[i], 0) / planes.length;

function colour(canvas, width, height, of) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) image.data.set([...of(i), 255], 4 * i);
  context.putImageData(image, 0, 0);
}

/** Read a picture of any format that the browser supports: upright, and at most LARGEST. Throws if it cannot be read. */
export async function pictureOf(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} is not a picture that this browser can read. Use a PNG or JPEG file.`);
  }
  const shrink = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
  const canvas = h("canvas", { width: Math.max(1, Math.round(bitmap.width * shrink)), height: Math.max(1, Math.round(bitmap.height * shrink)) });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas;
}

/** Encode a canvas as a PNG. */
export const png = (canvas) => new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
