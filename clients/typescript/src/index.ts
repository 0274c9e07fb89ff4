/** The client of Godoty, a service that runs agents and accounts for every token; and the messages of its contract. */
export { type CallOptions, type Calls } from "./calls.js";
export { Godoty, type GodotyOptions } from "./client.js";
export { type FieldViolation, GodotyError } from "./errors.js";
export { type ConverseOptions, Turn } from "./turn.js";

export { Duration } from "./gen/google/protobuf/duration.js";
export { FieldMask } from "./gen/google/protobuf/field_mask.js";
export * from "./gen/godoty/v1/admin_service.js";
export * from "./gen/godoty/v1/agent.js";
export * from "./gen/godoty/v1/agent_definition_service.js";
export * from "./gen/godoty/v1/agent_service.js";
export * from "./gen/godoty/v1/attachment.js";
export * from "./gen/godoty/v1/billing_service.js";
export * from "./gen/godoty/v1/budget.js";
export * from "./gen/godoty/v1/errors.js";
export * from "./gen/godoty/v1/ledger.js";
export * from "./gen/godoty/v1/mcp_server.js";
export * from "./gen/godoty/v1/metering.js";
export * from "./gen/godoty/v1/model.js";
export * from "./gen/godoty/v1/session.js";
export * from "./gen/godoty/v1/tenant.js";
export * from "./gen/godoty/v1/turn.js";
