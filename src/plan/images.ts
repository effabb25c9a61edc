import { TextureUsage } from '../gpu/flags.ts';
import type { Value } from '../graph/graph.ts';
import { placeBlocks } from './memory.ts';
import type { Region } from './storage.ts';

// Images are read-only copies of tensors in textures. On lavapipe a storage load is a masked, bounds-checked branch per lane, while a texel is gathered for all
// lanes at once: half the time and less, and the copy costs next to nothing (memcpy). What the copies take is memory, so they are short-lived: an image is
// made just before the dispatch that needs it and given up when its next use is far away.

/** Texels (vec4s) in a row of an image; kernels compute texel (i % 1024, i / 1024) from index i. */
const WIDTH = 1024;
const ROW_BYTES = WIDTH * 16;

/** Texels that no kernel reads, after each row: rows 16 KiB apart would fall into the same few sets of a cache when a kernel walks down a matrix. */
const PADDING = 8;

/** Dispatches between two uses of an image beyond which it is copied again instead of kept. */
const PATIENCE = 12;

/** What one dispatch reads as images (storage roots and where they lie), and the buffers that it writes. */
export interface ImageAccess { readonly reads: ReadonlyMap<Value, Region>; readonly writes: ReadonlySet<GPUBuffer> }

interface Image { readonly from: Region; readonly first: number; last: number }

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
  accesses.forEach(({ reads, writes }, i) => {
    for (const [value, from] of reads) {
      let image = current.get(value);
      if (!image || i - image.last > PATIENCE) {
        image = { from, first: i, last: i };
        current.set(value, image);
        images.push(image);
      }
      image.last = i;
      used[i]!.set(value, image);
    }
    for (const [value, image] of current) if (writes.has(image.from.buffer)) current.delete(value);
  });
  const rows = (image: Image): number => Math.ceil(image.from.size / ROW_BYTES);
  const plan = placeBlocks(images.map((image) => ({ bytes: rows(image) * ROW_BYTES, first: image.first, last: image.last })));
  const textures = plan.slotBytes.map((size, i) => createImage(device, `${label} image ${i}`, size));
  const views = textures.map((texture) => texture.createView());
  const slotOf = new Map(images.map((image, i) => [image, plan.slotOf[i]!]));
  const starting = accesses.map(() => [] as ImageCopy[]);
  for (const image of images) starting[image.first]!.push({ from: image.from, texture: textures[slotOf.get(image)!]! });
  return {
    textures, bytes: plan.slotBytes.reduce((a, b) => a + b, 0),
    view: (dispatch, value) => views[slotOf.get(used[dispatch]!.get(value)!)!]!,
    copies: (dispatch) => starting[dispatch]!,
  };
}

export interface ImageCopy { readonly from: Region; readonly texture: GPUTexture }

/** Encodes the copy of a region into an image: its whole rows, then what is left of the last one. */
export function copyToImage(encoder: GPUCommandEncoder, { from, texture }: ImageCopy): void {
  const whole = Math.floor(from.size / ROW_BYTES), rest = (from.size % ROW_BYTES) / 16;
  if (whole) encoder.copyBufferToTexture({ buffer: from.buffer, offset: from.offset, bytesPerRow: ROW_BYTES }, { texture }, [WIDTH, whole]);
  if (rest) encoder.copyBufferToTexture({ buffer: from.buffer, offset: from.offset + whole * ROW_BYTES }, { texture, origin: [0, whole] }, [rest, 1]);
}
