"""Which arguments of a call are personal data: by the catalogue's declaration, or because their name says so."""

import re

from pocketloop.contracts.recipe import Catalogue

Slots = dict[str, dict[str, str]]
"""Function name → argument name → type of personal data; the function `*` speaks for all."""

SPEAKING_NAMES = {
    "PERSON": "full_name first_name last_name surname director directors actor actors actress starring cast author",
    "PHONE_NUMBER": "phone phone_number mobile mobile_number telephone tel fax",
    "EMAIL_ADDRESS": "email e_mail email_address recipient_email",
    "ADDRESS": "street street_address home_address postal_address mailing_address",
    "DATE_OF_BIRTH": "date_of_birth birth_date birthdate dob",
    "CREDIT_CARD": "card_number credit_card credit_card_number",
    "IBAN": "iban",
    "US_SSN": "ssn social_security_number",
    "LICENSE_PLATE": "license_plate licence_plate plate_number",
    "PASSWORD": "password passcode pin pin_code passphrase",
    "API_KEY": "api_key token access_token secret",
    "IP_ADDRESS": "ip ip_address mac_address",
    "USERNAME": "username user_name handle",
}

_SPEAKING = {name: kind for kind, names in SPEAKING_NAMES.items() for name in names.split()}
_ROLES = """guest patient therapist doctor dentist physician stylist customer client owner driver passenger tenant
    landlord agent employee manager colleague caller friend teacher lawyer""".split()
_ADDRESSED = "contact recipient person sender attendee invitee participant".split()
_A_ROLE = re.compile(rf"(?:{'|'.join(_ROLES + _ADDRESSED)})_names?|(?:{'|'.join(_ADDRESSED)})s?")
"""Arguments named after somebody's part: `therapist_name`, `invitees`."""


def slot_type(slots: Slots, function: str, argument: str) -> str | None:
    """The type of personal data in an argument, `None` when nothing says that it is any."""
    for declared in (slots.get(function, {}), slots.get("*", {})):
        if argument in declared:
            return declared[argument]
    name = re.sub(r"(?<=[a-z])(?=[A-Z])|[\s-]", "_", argument).lower()
    return "PERSON" if _A_ROLE.fullmatch(name) else _SPEAKING.get(name)


def slots_of(catalogue: Catalogue | None) -> Slots:
    """The arguments that a catalogue declares as personal data (`x-pii: TYPE` in a parameter's schema)."""
    slots: Slots = {}
    for function in catalogue.functions if catalogue else []:
        for name, schema in (function.get("parameters") or {}).get("properties", {}).items():
            kind = schema.get("x-pii") or (schema.get("items") or {}).get("x-pii")
            if kind:
                slots.setdefault(function["name"], {})[name] = kind
    return slots


def vocabulary_of(catalogue: Catalogue | None) -> frozenset[str]:
    """What programs say and people need not: a catalogue's labels, its functions' names and enumerated arguments."""
    if catalogue is None:
        return frozenset()
    words = {*catalogue.labels, *(str(function["name"]) for function in catalogue.functions)}
    for function in catalogue.functions:
        for schema in (function.get("parameters") or {}).get("properties", {}).values():
            for choices in (schema.get("enum"), (schema.get("items") or {}).get("enum")):
                words.update(choice for choice in choices or () if isinstance(choice, str))
    return frozenset(words)
