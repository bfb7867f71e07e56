/**
 * Word lists of our own: compounds of plain English words, thousands of each kind, none of them memorized as a fact.
 *
 * @module
 */

const HEADS = (
  "amber arrow ash barley beacon bell birch black bone bramble brass bread bridge brook candle cedar chalk clay cliff " +
  "cloud clover coal copper coral cotton crane crow dawn deer dew dove drift dust eagle east elder elm ember falcon " +
  "fern field fire flax flint foam fog forest fox frost glass goat gold goose grain granite grass gravel green grey " +
  "harbor hare hawk hay hazel heath heron hill honey horn ice iron ivy jade juniper lake lantern lark leaf lime linen " +
  "maple marble marsh meadow mill mint mist moon moss moth night north oak olive otter owl pearl pebble pepper pine " +
  "plum poplar quartz rain raven reed ridge river robin rock rose rye"
).split(" ");

const TAILS = (
  "back band bank barn basin bed bend berry board bough brow cap case chest coat crest crown door down edge fall fence " +
  "flower fold foot ford gate glade grove guard hall hand haven head hedge hold hook house keep land lane light line " +
  "lock loft mark mead mouth nest path place pool port post ring root row seat shade shaft shell shore side smith spring " +
  "stand stead stem step stone store strand tail thorn tide top tower track trail tree view wall ward water way well " +
  "wheel wick wind wing wood work yard"
).split(" ");

const ENDINGS = ["less", "like", "born", "bound", "bright", "clad", "deep", "free", "lit", "proof", "ward", "worn"];

/** About 10,000 nouns: `riverstone`, `foxglade`. */
export const nouns: readonly string[] = HEADS.flatMap((head) => TAILS.map((tail) => head + tail));

/** About 1,400 adjectives: `moonlit`, `ironclad`. */
export const adjectives: readonly string[] = HEADS.flatMap((head) => ENDINGS.map((ending) => head + ending));

/** Given names, for people who do not exist. */
export const names: readonly string[] = [
  ..."Adela Bram Corin Della Edric Fenna Garet Hilde Ivo Jorun Kester Lida Maren Nils Odile Piet Quill Rosa Sander Thea"
    .split(" "),
  ..."Ulric Vera Wim Xanthe Yorick Zelda Anso Berit Calla Doran Elske Folke Greta Hauke Inga Joss Katla Leif Mirte Noor"
    .split(" "),
];
