module:depends("pubsub_subscription");
