// The `@anthropic-ai/sdk` package against the gateway.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { ample, collect, hello, longForm, untilTold, Weather } from "./asked.mjs";
import * as z from "zod";

export function cases(address, key) {
  const client = new Anthropic({ apiKey: key, baseURL: address, maxRetries: 0, timeout: 60_000 });
  const ask = { model: "tiny", messages: hello, max_tokens: 12 };

  return {
    async chat() {
      const answer = await client.messages.create(ask);
      assert.deepEqual(answer.content.map((block) => block.type), ["text"]);
      assert.ok(["max_tokens", "end_turn"].includes(answer.stop_reason));
      const { input_tokens } = await client.messages.countTokens({ model: "tiny", messages: hello });
      assert.equal(answer.usage.input_tokens + answer.usage.cache_read_input_tokens, input_tokens);
    },

    async stream() {
      const stream = client.messages.stream(ask);
      const kinds = (await collect(stream)).map((event) => event.type);
      assert.equal(kinds[0], "message_start");
      assert.equal(kinds.at(-1), "message_stop");
      assert.ok((await stream.finalMessage()).usage.output_tokens <= 12);
    },

    async tools() {
      const tools = [{ name: "weather", input_schema: z.toJSONSchema(Weather) }];
      const more = { max_tokens: ample, tools, tool_choice: { type: "any" } };
      const called = await client.messages.stream({ ...ask, ...more }).finalMessage();
      assert.equal(called.stop_reason, "tool_use");
      for (const use of called.content) Weather.parse(use.input);
      const results = called.content.map(({ id }) => ({ type: "tool_result", tool_use_id: id, content: "Rain." }));
      const messages = [
        ...hello,
        { role: "assistant", content: called.content },
        { role: "user", content: results },
      ];
      const heard = await client.messages.create({ ...ask, tools, messages });
      assert.deepEqual(heard.content.map((block) => block.type), ["text"]);
    },

    async errors() {
      await assert.rejects(client.messages.create({ ...ask, model: "huge" }), (error) => {
        assert.ok(error instanceof Anthropic.NotFoundError);
        assert.equal(error.error.error.type, "not_found_error");
        assert.ok(error.requestID);
        return true;
      });
    },

    async abort() {
      const output_config = { format: { type: "json_schema", schema: longForm } };
      const stream = await client.messages.create({ ...ask, max_tokens: 16_000, stream: true, output_config });
      for await (const event of stream) {
        if (event.type === "content_block_delta") stream.controller.abort();
      }
      await untilTold();
    },
  };
}
