"""The OpenAI dialect: schemas, conversion to and from the engine, routes."""
