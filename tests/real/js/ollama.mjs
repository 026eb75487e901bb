// The `ollama` package against the gateway.
import assert from "node:assert/strict";
import { Ollama } from "ollama";
import { ample, collect, hello, longForm, Person, untilTold, Weather } from "./asked.mjs";
import * as z from "zod";

export function cases(address, key) {
  const client = new Ollama({ host: address, headers: { Authorization: `Bearer ${key}` } });
  const ask = { model: "tiny", messages: hello, options: { num_predict: 12 } };
  const free = { ...ask, options: { num_predict: ample } };

  return {
    async chat() {
      const answer = await client.chat(ask);
      assert.ok(answer.done && answer.message.content);
      assert.ok(["length", "stop"].includes(answer.done_reason));
    },

    async stream() {
      const parts = await collect(await client.chat({ ...ask, stream: true }));
      assert.deepEqual(parts.map((part) => part.done), [...parts.slice(1).map(() => false), true]);
      assert.ok(parts.at(-1).eval_count <= 12);
    },

    async tools() {
      const definition = { name: "weather", description: "", parameters: z.toJSONSchema(Weather) };
      const { message } = await client.chat({ ...free, tools: [{ type: "function", function: definition }] });
      assert.ok(message.tool_calls.length > 0);
      for (const call of message.tool_calls) Weather.parse(call.function.arguments);
    },

    async form() {
      const answer = await client.chat({ ...free, format: z.toJSONSchema(Person) });
      Person.parse(JSON.parse(answer.message.content));
    },

    async embeddings() {
      const { embeddings } = await client.embed({ model: "tiny", input: ["the dog", "the cat"] });
      assert.deepEqual(embeddings.map((vector) => vector.length), [64, 64]);
    },

    async models() {
      assert.deepEqual((await client.list()).models.map((model) => model.name), ["tiny"]);
    },

    async errors() {
      await assert.rejects(client.chat({ ...ask, model: "huge" }), (error) => {
        assert.equal(error.status_code, 404);
        assert.match(error.message, /huge/);
        return true;
      });
    },

    async abort() {
      const stream = await client.chat({ ...ask, options: {}, format: longForm, stream: true });
      await assert.rejects(
        (async () => {
          for await (const part of stream) if (part.message.content) stream.abort();
        })(),
        { name: "AbortError" },
      );
      await untilTold();
    },
  };
}
