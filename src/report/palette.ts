/** Colours of matrices, where a browser can import them. */
import * as Plot from '@observablehq/plot';

export type ColourMap = 'magma' | 'viridis';

/** 256 colours of a perceptually uniform map, dark to bright, as RGB bytes. */
export function palette(map: ColourMap): Uint8Array {
  const scale = Plot.scale({ color: { scheme: map, domain: [0, 255] } });
  const bytes = new Uint8Array(256 * 3);
  for (let i = 0; i < 256; i++) bytes.set(rgb(scale.apply(i) as string), 3 * i);
  return bytes;
}

function rgb(colour: string): number[] {
  const hex = /^#(..)(..)(..)$/.exec(colour);
  return hex
    ? hex.slice(1).map((part) => parseInt(part, 16))
    : (colour.match(/\d+/g) ?? []).slice(0, 3).map(Number);
}
