/** Status codes by name. */
export const STATUS_CODE: Readonly<Record<string, number>>;
/** Phrases by status code. */
export const STATUS_TEXT: Readonly<Record<number, string>>;
