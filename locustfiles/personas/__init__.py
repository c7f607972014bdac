"""Who uses the service: one persona a file, each with its weight and its journeys."""

from locustfiles.personas.admin_user import AdminUser
from locustfiles.personas.api_user import ApiUser
from locustfiles.personas.mobile_user import MobileUser
from locustfiles.personas.researcher_user import ResearcherUser
from locustfiles.personas.session_user import SessionUser
from locustfiles.personas.web_app_user import WebAppUser

__all__ = ["AdminUser", "ApiUser", "MobileUser", "ResearcherUser", "SessionUser", "WebAppUser"]
