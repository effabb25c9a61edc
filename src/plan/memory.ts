/** A block of storage that must exist from dispatch `first` to dispatch `last`, both included. */
export interface Block {
  readonly bytes: number;
  readonly first: number;
  readonly last: number;
}

/** Slots and which block lies in which. */
export interface Placement {
  readonly slotBytes: number[];
  readonly slotOf: number[];
}

/**
 * Greedy by size: the largest block first, each into the first slot whose other blocks do not overlap it in
 * time. A slot becomes a GPU buffer of its own. Offsets into one large buffer would pack a little tighter,
 * but WebGPU forbids one buffer to be bound read-only and writable in the same dispatch, and blocks that live
 * at the same time never share a slot, so this rule holds by construction.
 */
export function placeBlocks(blocks: readonly Block[]): Placement {
  const slotBytes: number[] = [];
  const members: Block[][] = [];
  const slotOf = new Array<number>(blocks.length).fill(-1);
  const order = blocks
    .map((_, i) => i)
    .sort((a, b) => blocks[b]!.bytes - blocks[a]!.bytes || blocks[a]!.first - blocks[b]!.first || a - b);
  for (const i of order) {
    const block = blocks[i]!;
    let slot = members.findIndex((others) =>
      others.every((o) => o.last < block.first || o.first > block.last),
    );
    if (slot < 0) {
      slot = members.length;
      members.push([]);
      slotBytes.push(block.bytes);
    }
    members[slot]!.push(block);
    slotOf[i] = slot;
  }
  return { slotBytes, slotOf };
}
