"""Publishers without ROS."""


class FakeTopic:
    """Takes messages for some number of subscribers."""

    def __init__(self):
        self.messages, self.subscribers = [], 0

    def get_subscription_count(self):
        return self.subscribers

    def publish(self, message):
        self.messages.append(message)


class FakeTopics:
    """Has one for each name."""

    def __getattr__(self, name):
        setattr(self, name, FakeTopic())
        return getattr(self, name)
