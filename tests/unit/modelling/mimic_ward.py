"""A small MIMIC-IV folder in the official layout: two patients, one of them twice in intensive care."""

# ruff: noqa: E501 - the tables' own lines

from __future__ import annotations

import gzip
from pathlib import Path

FILES = {
    "hosp/patients": """subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod
10,F,60,2150,2011 - 2013,2150-02-01
20,M,45,2160,2014 - 2016,
""",
    "hosp/admissions": """subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,admit_provider_id,admission_location,discharge_location,insurance,language,marital_status,race,edregtime,edouttime,hospital_expire_flag
10,200,2150-01-10 08:00:00,2150-01-20 12:00:00,2150-01-20 12:00:00,URGENT,P1,EMERGENCY ROOM,DIED,Other,?,SINGLE,WHITE,,,1
20,300,2160-07-01 09:00:00,2160-07-09 12:00:00,,ELECTIVE,P1,PHYSICIAN REFERRAL,HOME,Other,?,SINGLE,WHITE,,,0
""",
    "hosp/transfers": """subject_id,hadm_id,transfer_id,eventtype,careunit,intime,outtime
10,200,1,ED,Emergency Department,2150-01-10 06:00:00,2150-01-10 10:00:00
10,200,2,admit,Medical Intensive Care Unit (MICU),2150-01-10 10:00:00,2150-01-14 10:00:00
10,200,3,transfer,Medicine,2150-01-14 10:00:00,2150-01-16 10:00:00
10,200,4,transfer,Medical Intensive Care Unit (MICU),2150-01-16 10:00:00,2150-01-20 12:00:00
10,200,5,discharge,,2150-01-20 12:00:00,
20,300,6,admit,Cardiac Vascular Intensive Care Unit (CVICU),2160-07-01 09:00:00,2160-07-04 09:00:00
""",
    "hosp/diagnoses_icd": """subject_id,hadm_id,seq_num,icd_code,icd_version
10,200,1,A419,10
10,200,2,N179,10
20,300,1,41401,9
""",
    "hosp/procedures_icd": """subject_id,hadm_id,seq_num,chartdate,icd_code,icd_version
10,200,1,2150-01-10,5A1955Z,10
20,300,1,2160-07-01,3615,9
""",
    "hosp/labevents": """labevent_id,subject_id,hadm_id,specimen_id,itemid,order_provider_id,charttime,storetime,value,valuenum,valueuom,ref_range_lower,ref_range_upper,flag,priority,comments
1,10,200,1,50912,,2150-01-10 11:00:00,2150-01-10 12:30:00,1.4,1.4,mg/dL,0.4,1.1,abnormal,STAT,
2,10,200,1,51003,,2150-01-10 11:00:00,2150-01-10 12:30:00,___,,ng/mL,0,0.01,,STAT,"<0.01.  CTROPNT > 0.10 NG/ML, SUGGESTS ACUTE MI."
3,10,,2,50931,,2150-01-11 11:00:00,2150-01-11 12:00:00,88,88,mg/dL,70,105,,STAT,"CORRECTED RESULT, PREVIOUSLY REPORTED AS 880."
4,10,200,3,51478,,2150-01-11 11:00:00,2150-01-11 12:00:00,300,300,mg/dL,,,,STAT,
5,20,300,4,50971,,2160-07-01 10:00:00,2160-07-01 11:00:00,2 SPECIMENS RECEIVED,,mEq/L,3.3,5.1,,STAT,
""",
    "hosp/d_labitems": """itemid,label,fluid,category
50912,Creatinine,Blood,Chemistry
51003,Troponin T,Blood,Chemistry
50931,Glucose,Blood,Chemistry
51478,Glucose,Urine,Hematology
50971,Potassium,Blood,Chemistry
""",
    "icu/d_items": """itemid,label,abbreviation,linksto,category,unitname,param_type,lownormalvalue,highnormalvalue
220045,Heart Rate,HR,chartevents,Routine Vital Signs,bpm,Numeric,,
223761,Temperature Fahrenheit,Temperature F,chartevents,Routine Vital Signs,°F,Numeric,,
223951,Capillary Refill R,Capillary Refill R,chartevents,Cardiovascular (Pulses),,Text,,
226559,Foley,Foley,outputevents,Output,mL,Numeric,,
""",
    "icu/icustays": """subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los
10,200,31,Medical Intensive Care Unit (MICU),Medical Intensive Care Unit (MICU),2150-01-10 10:00:00,2150-01-14 10:00:00,4
10,200,32,Medical Intensive Care Unit (MICU),Medical Intensive Care Unit (MICU),2150-01-16 10:00:00,2150-01-20 12:00:00,4.08
20,300,33,Cardiac Vascular Intensive Care Unit (CVICU),Cardiac Vascular Intensive Care Unit (CVICU),2160-07-01 09:00:00,2160-07-04 09:00:00,3
""",
    "icu/chartevents": """subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valuenum,valueuom,warning
10,200,31,1,2150-01-10 11:00:00,2150-01-10 11:05:00,220045,90,90,bpm,0
10,200,31,1,2150-01-10 11:00:00,2150-01-10 11:05:00,223761,98.6,98.6,°F,0
10,200,31,1,2150-01-10 11:00:00,2150-01-10 11:05:00,223951,Normal <3 Seconds,,,0
10,200,31,1,2150-01-10 11:00:00,2150-01-10 11:05:00,220739,Spontaneously,4,,0
10,200,31,1,2150-01-10 11:00:00,2150-01-10 11:05:00,223900,No Response-ETT,1,,0
10,200,31,1,2150-01-10 11:00:00,2150-01-10 11:09:00,223901,Obeys Commands,6,,0
10,200,31,1,2150-01-10 11:00:00,2150-01-10 11:05:00,227969,Bed Locked in Low Position,,,0
20,300,33,1,2160-07-01 12:00:00,2160-07-01 12:03:00,220045,70,70,bpm,0
20,300,33,1,2160-07-01 12:00:00,2160-07-01 12:03:00,223835,40,40,,0
""",
    "icu/outputevents": """subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valueuom
10,200,31,1,2150-01-10 12:00:00,2150-01-10 11:50:00,226559,120,ml
10,200,31,1,2150-01-10 12:00:00,2150-01-10 11:50:00,226588,20,ml
""",
}


def write_mimic(root: Path, **changed: str | None) -> Path:
    """Write the folder; keyword ``icu__chartevents`` replaces that table, or leaves it out when None."""
    for name, text in FILES.items():
        content = changed.get(name.replace("/", "__"), text)
        if content is None:
            continue
        path = root / f"{name}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content.encode(), mtime=0))
    return root
