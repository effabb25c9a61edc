import { TextureUsage } from '../gpu/flags.ts';
import type { Value } from '../graph/graph.ts';
import { PANEL_COLUMNS, PANEL_ROWS } from '../launch/image.ts';
import { placeBlocks } from './memory.ts';
import type { Region } from './storage.ts';

// Images are read-only copies of tensors in textures. On lavapipe a storage load is a masked, bounds-checked
// branch per lane, while a texel is gathered for all lanes at once: half the time and less, and the copy
// costs next to nothing (memcpy). What the copies take is memory, so they are short-lived: an image is made
// shortly before the dispatch that needs it and given up when its next use is far away. A copy ends the
// compute pass, so copies are made together. There are two kinds. One holds the vec4s of a tensor in their
// order. The other holds panels, 8 vec4s of a row beside the same 8 of the next row: a kernel that walks down
// a matrix then reads memory in order, where it would touch a page of its own in every row.

/** Texels (vec4s) in a row of an image; kernels compute texel (i % 1024, i / 1024) from index i. */
const WIDTH = 1024;
const ROW_BYTES = WIDTH * 16;

/**
 * Size for a buffer of so many bytes that is copied into an image: whole rows, so that a copy is one call.
 */
export const wholeRows = (bytes: number): number =>
  bytes < ROW_BYTES ? bytes : Math.ceil(bytes / ROW_BYTES) * ROW_BYTES;

/**
 * Texels that no kernel reads, after each row: rows 16 KiB apart would fall into the same few sets of a cache
 * when a kernel walks down a matrix.
 */
const PADDING = 8;

/** Bytes of a layer of an image in panels. */
const LAYER_BYTES = 16 * PANEL_COLUMNS * PANEL_ROWS;

/**
 * Dispatches between two uses of an image beyond which it is copied again instead of kept, and between a copy
 * and its first use.
 */
const PATIENCE = 12;

/** What a dispatch reads as an image: a storage root, where it lies, and for panels the vec4s in a row. */
export interface ImageRead {
  readonly value: Value;
  readonly from: Region;
  readonly width: number | null;
}

/** What one dispatch reads as images, and the buffers that it writes. */
export interface ImageAccess {
  readonly reads: readonly ImageRead[];
  readonly writes: ReadonlySet<GPUBuffer>;
}

/** `first` and `last` use; `at`: the dispatch before which it is made. */
interface Image {
  readonly from: Region;
  readonly width: number | null;
  readonly first: number;
  last: number;
  readonly at: number;
}

export interface ImagePlan {
  readonly textures: readonly GPUTexture[];
  readonly bytes: number;
  /** The image that a dispatch reads of a value. */
  view(dispatch: number, value: Value, width: number | null): GPUTextureView;
  /** Copies to make before a dispatch. */
  copies(dispatch: number): readonly ImageCopy[];
}

const rowsOf = ({ size }: Region, width: number): number => Math.floor(size / (16 * width));

/** A device, or what keeps account of what it makes. */
type TextureMaker = Pick<GPUDevice, 'createTexture'>;

/** Bytes of the texture of an image. */
const imageBytes = (from: Region, width: number | null): number =>
  width === null
    ? Math.ceil(from.size / ROW_BYTES) * ROW_BYTES
    : (width / PANEL_COLUMNS) * Math.ceil(rowsOf(from, width) / PANEL_ROWS) * LAYER_BYTES;

const createTexture = (device: TextureMaker, label: string, bytes: number, panels: boolean): GPUTexture =>
  device.createTexture({
    label,
    format: 'rgba32float',
    usage: TextureUsage.STORAGE_BINDING | TextureUsage.COPY_DST,
    size: panels ? [PANEL_COLUMNS, PANEL_ROWS, bytes / LAYER_BYTES] : [WIDTH + PADDING, bytes / ROW_BYTES],
  });

/** A texture for the image of a region. */
export const createImage = (
  device: GPUDevice,
  label: string,
  from: Region,
  width: number | null,
): GPUTexture => createTexture(device, label, imageBytes(from, width), width !== null);

/** What the binding of an image takes. */
export const viewImage = (texture: GPUTexture, panels: boolean): GPUTextureView =>
  texture.createView({ dimension: panels ? '2d-array' : '2d' });

/**
 * Decides which images exist when, lays them into as few textures as their lifetimes allow, and creates
 * those.
 */
export function planImages(device: TextureMaker, label: string, accesses: readonly ImageAccess[]): ImagePlan {
  const images: Image[] = [];
  const current = new Map<string, Image>();
  const used = accesses.map(() => new Map<string, Image>());
  const key = (value: Value, width: number | null): string => `${value.id} ${width}`;
  /** The dispatch before which copies were made last, and the last one that wrote to each buffer. */
  const written = new Map<GPUBuffer, number>();
  let stop = -1;
  accesses.forEach(({ reads, writes }, i) => {
    const wanted = new Map(reads.map((read) => [key(read.value, read.width), read]));
    const missing = [...wanted].filter(([name]) => {
      const image = current.get(name);
      return !image || i - image.last > PATIENCE;
    });
    // Where all of them could have been copied with the last ones, they are; otherwise all are copied here.
    const early =
      stop >= 0 &&
      i - stop <= PATIENCE &&
      missing.every(([, { from }]) => stop > (written.get(from.buffer) ?? -1));
    if (missing.length && !early) stop = i;
    for (const [name, { from, width }] of missing) {
      const image = { from, width, first: i, last: i, at: stop };
      current.set(name, image);
      images.push(image);
    }
    for (const name of wanted.keys()) {
      const image = current.get(name)!;
      image.last = i;
      used[i]!.set(name, image);
    }
    for (const [name, image] of current) if (writes.has(image.from.buffer)) current.delete(name);
    for (const buffer of writes) written.set(buffer, i);
  });
  const textures: GPUTexture[] = [];
  const views = new Map<Image, GPUTextureView>();
  const starting = accesses.map(() => [] as ImageCopy[]);
  let bytes = 0;
  for (const panels of [false, true]) {
    const kind = images.filter((image) => (image.width !== null) === panels);
    const plan = placeBlocks(
      kind.map(({ from, width, at, last }) => ({ bytes: imageBytes(from, width), first: at, last })),
    );
    const created = plan.slotBytes.map((size, i) =>
      createTexture(device, `${label} ${panels ? 'panels' : 'image'} ${i}`, size, panels),
    );
    const viewed = created.map((texture) => viewImage(texture, panels));
    kind.forEach((image, i) => {
      const slot = plan.slotOf[i]!;
      views.set(image, viewed[slot]!);
      starting[image.at]!.push(imageCopy(image.from, image.width, created[slot]!));
    });
    textures.push(...created);
    bytes = plan.slotBytes.reduce((a, b) => a + b, bytes);
  }
  return {
    textures,
    bytes,
    view: (dispatch, value, width) => views.get(used[dispatch]!.get(key(value, width))!)!,
    copies: (dispatch) => starting[dispatch]!,
  };
}

/**
 * Copies a region: its `whole` rows of texels, and `rest` texels of the row after them; or in panels of a
 * tensor with `width` vec4s a row.
 */
export interface ImageCopy {
  readonly from: Region;
  readonly texture: GPUTexture;
  readonly width: number | null;
  readonly whole: number;
  readonly rest: number;
}

/**
 * The copy of a region into an image. The last row is copied whole as well, with what lies behind the region,
 * where the buffer goes on so far: one call less.
 */
export function imageCopy(from: Region, width: number | null, texture: GPUTexture): ImageCopy {
  const rows = Math.ceil(from.size / ROW_BYTES);
  if (from.offset + rows * ROW_BYTES <= from.buffer.size)
    return { from, texture, width, whole: rows, rest: 0 };
  return {
    from,
    texture,
    width,
    whole: Math.floor(from.size / ROW_BYTES),
    rest: (from.size % ROW_BYTES) / 16,
  };
}

export function copyToImage(
  encoder: GPUCommandEncoder,
  { from, texture, width, whole, rest }: ImageCopy,
): void {
  const { buffer, offset } = from;
  if (width === null) {
    if (whole)
      encoder.copyBufferToTexture({ buffer, offset, bytesPerRow: ROW_BYTES }, { texture }, [WIDTH, whole]);
    if (rest)
      encoder.copyBufferToTexture(
        { buffer, offset: offset + whole * ROW_BYTES },
        { texture, origin: [0, whole] },
        [rest, 1],
      );
    return;
  }
  const rows = rowsOf(from, width);
  const blocks = Math.ceil(rows / PANEL_ROWS);
  const bytesPerRow = 16 * width;
  for (let panel = 0; panel * PANEL_COLUMNS < width; panel++)
    for (let block = 0; block < blocks; block++) {
      encoder.copyBufferToTexture(
        {
          buffer,
          offset: offset + 16 * PANEL_COLUMNS * panel + PANEL_ROWS * block * bytesPerRow,
          bytesPerRow,
        },
        { texture, origin: [0, 0, panel * blocks + block] },
        [PANEL_COLUMNS, Math.min(PANEL_ROWS, rows - PANEL_ROWS * block)],
      );
    }
}
