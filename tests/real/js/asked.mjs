// What the cases ask, whichever client asks it: see asked.py.
import * as z from "zod";

export const hello = [{ role: "user", content: "Hello" }];
// Of calls that are bound to a grammar: it ends them.
export const ample = 4000;

export const Person = z.strictObject({ name: z.enum(["Ada", "Grace"]), age: z.int(), is_poet: z.boolean() });
export const Weather = z.strictObject({ city: z.enum(["Bern", "Oslo"]), days: z.int() });

// Takes the model longer than anybody waits.
const row = { type: "array", minItems: 300, items: { type: "boolean" } };
export const longForm = {
  type: "object",
  properties: { rows: { type: "array", minItems: 300, items: row } },
  required: ["rows"],
  additionalProperties: false,
};

export async function collect(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}

// The test closes our standard input once it saw that the server stopped: so it is not our end that stops it.
export async function untilTold() {
  console.log("left");
  for await (const _ of process.stdin);
}
