import { TextureUsage } from '../gpu/flags.ts';
import type { Value } from '../graph/graph.ts';
import { placeBlocks } from './memory.ts';
import type { Region } from './storage.ts';

// Images are read-only copies of tensors in textures. On lavapipe a storage load is a masked, bounds-checked branch per lane, while a texel is gathered for all
// lanes at once: half the time and less, and the copy costs next to nothing (memcpy). What the copies take is memory, so they are short-lived: an image is
// made shortly before the dispatch that needs it and given up when its next use is far away. A copy ends the compute pass, so copies are made together.

/** Texels (vec4s) in a row of an image; kernels compute texel (i % 1024, i / 1024) from index i. */
const WIDTH = 1024;
const ROW_BYTES = WIDTH * 16;

/** Size for a buffer of so many bytes that is copied into an image: whole rows, so that a copy is one call. */
export const wholeRows = (bytes: number): number => (bytes < ROW_BYTES ? bytes : Math.ceil(bytes / ROW_BYTES) * ROW_BYTES);

/** Texels that no kernel reads, after each row: rows 16 KiB apart would fall into the same few sets of a cache when a kernel walks down a matrix. */
const PADDING = 8;

/** Dispatches between two uses of an image beyond which it is copied again instead of kept, and between a copy and its first use. */
const PATIENCE = 12;

/** What one dispatch reads as images (storage roots and where they lie), and the buffers that it writes. */
export interface ImageAccess { readonly reads: ReadonlyMap<Value, Region>; readonly writes: ReadonlySet<GPUBuffer> }

/** `first` and `last` use; `at`: the dispatch before which it is made. */
interface Image { readonly from: Region; readonly first: number; last: number; readonly at: number }

export interface ImagePlan {
  readonly textures: readonly GPUTexture[];
  readonly bytes: number;
  /** The image that a dispatch reads of a value. */
  view(dispatch: number, value: Value): GPUTextureView;
  /** Copies to make before a dispatch. */
  copies(dispatch: number): readonly ImageCopy[];
}

/** A texture for the image of a tensor of so many bytes. */
export const createImage = (device: GPUDevice, label: string, bytes: number): GPUTexture => device.createTexture({
  label, size: [WIDTH + PADDING, Math.ceil(bytes / ROW_BYTES)], format: 'rgba32float', usage: TextureUsage.STORAGE_BINDING | TextureUsage.COPY_DST,
});

/** Decides which images exist when, lays them into as few textures as their lifetimes allow, and creates those. */
export function planImages(device: GPUDevice, label: string, accesses: readonly ImageAccess[]): ImagePlan {
  const images: Image[] = [], current = new Map<Value, Image>(), used = accesses.map(() => new Map<Value, Image>());
  /** The dispatch before which copies were made last, and the last one that wrote to each buffer. */
  const written = new Map<GPUBuffer, number>();
  let stop = -1;
  accesses.forEach(({ reads, writes }, i) => {
    const missing = [...reads].filter(([value]) => { const image = current.get(value); return !image || i - image.last > PATIENCE; });
    // Where all of them could have been copied with the last ones, they are; otherwise all are copied here.
    const early = stop >= 0 && i - stop <= PATIENCE && missing.every(([, from]) => stop > (written.get(from.buffer) ?? -1));
    if (missing.length && !early) stop = i;
    for (const [value, from] of missing) {
      const image = { from, first: i, last: i, at: stop };
      current.set(value, image);
      images.push(image);
    }
    for (const value of reads.keys()) {
      const image = current.get(value)!;
      image.last = i;
      used[i]!.set(value, image);
    }
    for (const [value, image] of current) if (writes.has(image.from.buffer)) current.delete(value);
    for (const buffer of writes) written.set(buffer, i);
  });
  const rows = (image: Image): number => Math.ceil(image.from.size / ROW_BYTES);
  const plan = placeBlocks(images.map((image) => ({ bytes: rows(image) * ROW_BYTES, first: image.at, last: image.last })));
  const textures = plan.slotBytes.map((size, i) => createImage(device, `${label} image ${i}`, size));
  const views = textures.map((texture) => texture.createView());
  const slotOf = new Map(images.map((image, i) => [image, plan.slotOf[i]!]));
  const starting = accesses.map(() => [] as ImageCopy[]);
  for (const image of images) starting[image.at]!.push(imageCopy(image.from, textures[slotOf.get(image)!]!));
  return {
    textures, bytes: plan.slotBytes.reduce((a, b) => a + b, 0),
    view: (dispatch, value) => views[slotOf.get(used[dispatch]!.get(value)!)!]!,
    copies: (dispatch) => starting[dispatch]!,
  };
}

/** Copies a region's `whole` rows, and `rest` texels of the row after them. */
export interface ImageCopy { readonly from: Region; readonly texture: GPUTexture; readonly whole: number; readonly rest: number }

/** The copy of a region into an image. The last row is copied whole as well, with what lies behind the region, where the buffer goes on so far: one call less. */
export function imageCopy(from: Region, texture: GPUTexture): ImageCopy {
  const rows = Math.ceil(from.size / ROW_BYTES);
  if (from.offset + rows * ROW_BYTES <= from.buffer.size) return { from, texture, whole: rows, rest: 0 };
  return { from, texture, whole: Math.floor(from.size / ROW_BYTES), rest: (from.size % ROW_BYTES) / 16 };
}

export function copyToImage(encoder: GPUCommandEncoder, { from, texture, whole, rest }: ImageCopy): void {
  if (whole) encoder.copyBufferToTexture({ buffer: from.buffer, offset: from.offset, bytesPerRow: ROW_BYTES }, { texture }, [WIDTH, whole]);
  if (rest) encoder.copyBufferToTexture({ buffer: from.buffer, offset: from.offset + whole * ROW_BYTES }, { texture, origin: [0, whole] }, [rest, 1]);
}
