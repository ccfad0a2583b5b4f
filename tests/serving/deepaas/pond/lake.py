"""A module as a class, with a schema of its answers and nothing to train."""

from webargs import fields


class Lake:
    schema = {
        "status": fields.Str(required=True, description="how it went"),
        "labels": fields.List(fields.Str()),
        "probabilities": fields.List(fields.Float()),
        "picture": fields.Str(description="an image, base64"),
        "best": fields.Nested({"label": fields.Str(required=True), "probability": fields.Float()}),
    }

    @staticmethod
    def get_metadata():
        raise NotImplementedError

    @staticmethod
    def get_predict_args():
        return {"wrong": fields.Bool(missing=False), "name": fields.Str(required=True)}

    @staticmethod
    def predict(wrong, name):
        if wrong:
            return {"labels": 7}
        return {"status": "ok", "labels": [name, "eel"], "probabilities": [0.75, 0.25], "picture": "UE5H"}
