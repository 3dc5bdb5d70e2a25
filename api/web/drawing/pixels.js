// Small grey images on canvases, and pictures that people bring.

import { h } from "../dom.js";

const LARGEST = 1024; // pixels of the longer side that a picture is sent with

/**
 * A canvas with an image of a `shape`, [channels, height, width], on it: `pixels` are 0 to 255, channel by channel and in
 * each row by row, or as rows where there is one channel; 0 is black.
 */
export function digit(pixels, label, shape) {
  const canvas = h("canvas", { class: "digit", role: "img", "aria-label": label });
  paint(canvas, pixels, shape);
  return canvas;
}

/** Put an image on a canvas: three channels are red, green and blue, of any other number the mean is shown. */
export function paint(canvas, pixels, [channels, height, width]) {
  const planes = planesOf(pixels.flat(), channels);
  colour(canvas, width, height, channels === 3 ? (i) => planes.map((plane) => plane[i]) : (i) => Array(3).fill(mean(planes, i)));
}

/** A black image. */
export const black = ([channels, height, width]) => Array(channels * height * width).fill(0);

/**
 * Put an image on a canvas, orange where the answer rests on a pixel and blue where the pixel speaks against it.
 * `saliency` has how far the answer's probability falls where a pixel is covered, as rows.
 */
export function paintSaliency(canvas, pixels, saliency) {
  const [flat, falls] = [pixels.flat(), saliency.flat()];
  const planes = planesOf(flat, flat.length / falls.length);
  const most = falls.reduce((largest, fall) => Math.max(largest, Math.abs(fall)), 0.01);
  colour(canvas, saliency[0].length, saliency.length, (i) => {
    const share = Math.min(1, Math.abs(falls[i]) / most) * 0.85;
    const [grey, tone] = [mean(planes, i) * 0.75, falls[i] > 0 ? [255, 140, 30] : [70, 140, 255]];
    return tone.map((part) => grey * (1 - share) + part * share);
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

/** A picture in whatever format this browser reads, upright and no larger than need be. Throws where it is none. */
export async function pictureOf(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`The file ${file.name} is no picture that this browser can read; try a PNG or a JPEG`);
  }
  const shrink = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
  const canvas = h("canvas", { width: Math.max(1, Math.round(bitmap.width * shrink)), height: Math.max(1, Math.round(bitmap.height * shrink)) });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas;
}

/** What is on a canvas, as a PNG. */
export const png = (canvas) => new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
