"""The miniature family: tiny OLMo 3 models that really went through every stage of training."""
