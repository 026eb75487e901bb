// The `openai` package against the gateway.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { ample, collect, hello, longForm, Person, untilTold, Weather } from "./asked.mjs";

export function cases(address, key) {
  const client = new OpenAI({ apiKey: key, baseURL: `${address}/v1`, maxRetries: 0, timeout: 60_000 });
  const ask = { model: "tiny", messages: hello, max_tokens: 12 };

  return {
    async chat() {
      const answer = await client.chat.completions.create(ask);
      assert.equal(answer.choices[0].message.role, "assistant");
      assert.ok(["length", "stop"].includes(answer.choices[0].finish_reason));
      assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
    },

    async stream() {
      const options = { stream: true, stream_options: { include_usage: true } };
      const chunks = await collect(await client.chat.completions.create({ ...ask, ...options }));
      const last = chunks.pop();
      assert.deepEqual(last.choices, []);
      assert.ok(last.usage.completion_tokens <= 12);
      assert.ok(["length", "stop"].includes(chunks.at(-1).choices[0].finish_reason));
    },

    async tools() {
      const tools = [zodFunction({ name: "weather", parameters: Weather })];
      const called = await client.chat.completions
        .stream({ ...ask, max_tokens: ample, tools, tool_choice: "required" })
        .finalChatCompletion();
      const [choice] = called.choices;
      assert.equal(choice.finish_reason, "tool_calls");
      assert.ok(choice.message.tool_calls.length > 0);
      for (const call of choice.message.tool_calls) Weather.parse(call.function.parsed_arguments);
      const results = choice.message.tool_calls.map(({ id }) => ({ role: "tool", tool_call_id: id, content: "Rain." }));
      const heard = await client.chat.completions.create({
        ...ask,
        tools,
        messages: [...hello, choice.message, ...results],
      });
      assert.equal(heard.choices[0].message.tool_calls, undefined);
    },

    async form() {
      const response_format = zodResponseFormat(Person, "person");
      const whole = await client.chat.completions.parse({ ...ask, max_tokens: ample, response_format });
      Person.parse(whole.choices[0].message.parsed);
    },

    async embeddings() {
      const answer = await client.embeddings.create({ model: "tiny", input: ["the dog", "the cat"] });
      assert.deepEqual(answer.data.map((row) => row.embedding.length), [64, 64]);
      assert.equal(typeof answer.data[0].embedding[0], "number");
    },

    async models() {
      assert.deepEqual((await collect(await client.models.list())).map((model) => model.id), ["tiny"]);
    },

    async responses() {
      const events = await collect(
        await client.responses.create({ model: "tiny", input: "Hello", max_output_tokens: 16, stream: true }),
      );
      assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
      assert.equal(events[0].type, "response.created");
      const said = events.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta);
      assert.equal(events.at(-1).response.output[0].content[0].text, said.join(""));
      const filled = await client.responses
        .stream({
          model: "tiny",
          input: "Hello",
          max_output_tokens: ample,
          text: { format: zodTextFormat(Person, "person") },
        })
        .finalResponse();
      Person.parse(filled.output_parsed);
      assert.equal(filled.status, "completed");
    },

    async errors() {
      await assert.rejects(client.chat.completions.create({ ...ask, model: "huge" }), (error) => {
        assert.ok(error instanceof OpenAI.NotFoundError);
        assert.equal(error.code, "model_not_found");
        assert.ok(error.requestID);
        return true;
      });
      const long = [{ role: "user", content: "x".repeat(17_000) }];
      await assert.rejects(client.chat.completions.create({ ...ask, messages: long, stream: true }), (error) => {
        assert.ok(error instanceof OpenAI.BadRequestError);
        assert.match(error.message, /exceeds the available context size/);
        return true;
      });
      await assert.rejects(
        client.withOptions({ apiKey: "wrong" }).chat.completions.create(ask),
        OpenAI.AuthenticationError,
      );
    },

    async abort() {
      const response_format = { type: "json_schema", json_schema: { name: "form", strict: true, schema: longForm } };
      const stream = await client.chat.completions.create({
        ...ask,
        max_tokens: 16_000,
        stream: true,
        response_format,
      });
      for await (const chunk of stream) {
        if (chunk.choices[0].delta.content) stream.controller.abort();
      }
      await untilTold();
    },
  };
}
